"""The HTML report: one file, no network."""

from qcc.compiler.result import Result


def render_html(result: Result) -> str:
    """The report."""
    return f"<!doctype html><title>{result.output.name}</title>"
