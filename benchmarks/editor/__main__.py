"""How fast `qcc lsp` answers: the first message of a fresh process, and keystrokes in a policy of 500 lines.

    python -m benchmarks.editor

A keystroke is timed from its message to the diagnostics that come back; `whole` is what the check of all of the text
takes, which follows when nothing was typed for a quarter of a second.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from qcc.compiler.editor.rpc import Message, messages, write_message

LINES, KEYSTROKES, STARTS = 500, 60, 7
URI = "file:///nowhere/long.qpolicy"


def policy(lines: int = LINES) -> str:
    """A policy of so many lines: a rule for each of many layers, with formats, options and comments."""
    text = ["qpolicy 1", 'let tail = any[name ~ "*tail*"]', "param width = 32"]
    at = 0
    while len(text) < lines - 4:
        at += 1
        text += [
            f'rule linear[name ~ "*layer.{at}.*", in >= {at}] {{',
            "    weights  = int{3,4,5,6,8} channel | int4 group $width scale fp16",
            "    rounding = gptq(damping = 0.01)  # as measured",
            "}",
            "",
        ]
    return "\n".join([*text, "rule tail { keep }", "budget { size <= 20% }", "minimize output_error", ""])


class _Client:
    def __init__(self) -> None:
        words = [sys.executable, "-m", "qcc", "lsp"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.incoming = messages(self.process.stdout)

    def tell(self, method: str, number: int | None = None, **given: object) -> None:
        assert self.process.stdin is not None
        message: Message = {"method": method, "params": given} | ({} if number is None else {"id": number})
        write_message(self.process.stdin, message)

    def wait(self, wanted: str) -> Message:
        return next(one for one in self.incoming if one.get("method") == wanted or (wanted == "" and "result" in one))

    def end(self) -> None:
        self.tell("shutdown", 99)
        self.wait("")
        self.tell("exit")
        self.process.wait()


def _first_answer() -> float:
    start = time.perf_counter()
    client = _Client()
    client.tell("initialize", 1)
    client.wait("")
    taken = time.perf_counter() - start
    client.end()
    return taken


def _keystrokes() -> tuple[float, float, list[float]]:
    client = _Client()
    client.tell("initialize", 1)
    client.wait("")
    text = policy()
    start = time.perf_counter()
    client.tell("textDocument/didOpen", textDocument={"uri": URI, "text": text, "version": 0})
    client.wait("textDocument/publishDiagnostics")
    opened = time.perf_counter() - start
    line = next(at for at, one in enumerate(text.split("\n")) if "layer.50." in one) + 1
    taken = []
    for version in range(1, KEYSTROKES + 1):
        place = {"line": line, "character": 26 + version}
        change = {"range": {"start": place, "end": place}, "text": "group int4 scale"[version % 16]}
        start = time.perf_counter()
        client.tell("textDocument/didChange", textDocument={"uri": URI, "version": version}, contentChanges=[change])
        client.wait("textDocument/publishDiagnostics")
        taken.append(time.perf_counter() - start)
    start = time.perf_counter()
    client.tell("textDocument/didChange", textDocument={"uri": URI, "version": 0}, contentChanges=[{"text": text}])
    client.wait("textDocument/publishDiagnostics")
    whole = time.perf_counter() - start
    client.end()
    return opened, whole, taken


def main() -> None:
    """Print the times."""
    used = _cpu_s()
    firsts = sorted(_first_answer() for _ in range(STARTS))
    used = (_cpu_s() - used) / STARTS
    opened, whole, taken = _keystrokes()
    print(f"first answer     {_ms(firsts)}; {1e3 * used:.0f} ms of CPU, the end of the process included")
    print(f"keystroke        {_ms(sorted(taken))}")
    print(f"opened           {1e3 * opened:.0f} ms, all that the language may name loaded on the way")
    print(f"whole            {1e3 * whole:.0f} ms")


def _cpu_s() -> float:
    """Of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ms(taken: Sequence[float]) -> str:
    worst = taken[int(0.95 * (len(taken) - 1))]
    return f"{1e3 * statistics.median(taken):.0f} ms in the median of {len(taken)}, {1e3 * worst:.0f} ms of 95 in 100"


if __name__ == "__main__":
    main()
