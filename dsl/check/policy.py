"""From a syntax tree to a policy, or to all that is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qcc.dsl.check.adapters import read_adapter_line
from qcc.dsl.check.bounds import check_objective, read_bound
from qcc.dsl.check.calibrate import read_calibrate_line
from qcc.dsl.check.context import CheckState, only_literal
from qcc.dsl.check.depth import read_depth
from qcc.dsl.check.formats import read_formats
from qcc.dsl.check.link import Linked, Linker, Loader, define, spelled
from qcc.dsl.check.metrics import read_metric_line, see_metrics
from qcc.dsl.check.options import WRONG, GivenOption, build, read_method, read_option
from qcc.dsl.check.selectors import Resolver
from qcc.dsl.check.steps import read_sampler, read_step_cache, see_together
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.metrics import MetricOn
from qcc.dsl.policy.options import option_text
from qcc.dsl.policy.policy import (
    KEEP,
    AdapterFile,
    Assignment,
    Bound,
    Calibration,
    DepthPart,
    GraphFloats,
    Policy,
    Reconstruct,
    Rule,
    SamplerFile,
    StepCache,
    TargetName,
)
from qcc.dsl.policy.schema import Metric, Property, Schema
from qcc.dsl.policy.select import ANY, classes
from qcc.dsl.syntax import tree as syntax


def check(
    tree: syntax.File,
    schema: Schema,
    *,
    definitions: Mapping[str, str] | None = None,
    loader: Loader,
    report: Diagnostics | None = None,
) -> Policy:
    """Check a policy against a schema; warnings are left in ``report``.

    Raises:
        QccError: with every error of the policy and of the files that it uses.
    """
    context = CheckState(schema, Diagnostics() if report is None else report)
    linker = Linker(context, loader)
    linker.link(tree)
    define(context, definitions or {})
    policy = _Checker(context, linker, tree).run()
    context.report.raise_if_errors()
    return policy


class _Checker:
    def __init__(self, context: CheckState, linker: Linker, tree: syntax.File) -> None:
        self.context = context
        self.linker = linker
        self.tree = tree
        self.selectors = Resolver(context)
        self.rules: list[Rule] = []
        self.target: TargetName | None = None
        self.calibrate: Calibration | None = None
        self.minimize: str | None = None
        self.metrics: dict[str, MetricOn] = {}
        self.floats: GraphFloats | None = None
        self.bounds: dict[str, dict[tuple[str, str | None, str], Bound]] = {"budget": {}, "verify": {}}
        self.export: dict[str, GivenOption] = {}
        self.depth: dict[str, DepthPart] = {}
        self.reconstruct: Reconstruct | None = None
        self.adapters: list[AdapterFile] = []
        self.sampler: SamplerFile | None = None
        self.step_cache: StepCache | None = None

    def run(self) -> Policy:
        for linked in self.linker.statements:
            self._statement(linked)
        export = None
        if self.context.schema.export is not None:
            export = build(self.context, "export", self.context.schema.export, [*self.export.values()], self.tree.span)
        self._warn_of_unused()
        see_together(self.context, self.sampler, self.step_cache)
        see_metrics(self.context, self.metrics, self.minimize, self.bounds["budget"].values(), self.tree.span)
        return Policy(
            sources=tuple(self.linker.sources),
            rules=tuple(self.rules),
            target=self.target or TargetName(next(iter(self.context.schema.targets))),
            calibrate=self.calibrate,
            budget=tuple(self.bounds["budget"].values()),
            minimize=self.minimize or self._bounded_loss(),
            verify=tuple(self.bounds["verify"].values()),
            export=export,
            params=dict(spelled(self.context.params)),
            depth=tuple(self.depth.values()),
            adapters=tuple(self.adapters),
            sampler=self.sampler,
            step_cache=self.step_cache,
            floats=self.floats,
            reconstruct=self.reconstruct,
            metrics=tuple(self.metrics.values()),
        )

    def _bounded_loss(self) -> str:
        """What is minimised where nothing is said: the loss that the budget bounds, or else the language's default."""
        schema = self.context.schema
        bounded = [bound.metric for bound in self.bounds["budget"].values()]
        if "size" in schema.objectives and any(schema.budget[name].whole for name in bounded):
            return "size"
        losses = [name for name in bounded if name in schema.objectives and name in schema.verify]
        return losses[0] if losses else schema.objectives[0]

    def _statement(self, linked: Linked) -> None:
        match linked.statement:
            case syntax.RuleBlock() as rule:
                self._rule(rule, linked)
            case syntax.LetLine() as let:
                self.selectors.check_let(let, linked.scope)
            case syntax.TargetLine() as target:
                self.target = self._target(target)
            case syntax.CalibrateLine() as calibrate:
                self.calibrate = read_calibrate_line(self.context, calibrate, self._given(calibrate.settings))
            case syntax.GraphLine(floats=floats):
                self.floats = self._graph(floats)
            case syntax.AdapterLine() as adapter:
                given = self._given(adapter.settings)
                self.adapters += read_adapter_line(self.context, adapter, given, self.adapters)
            case syntax.SamplerLine() as sampler:
                self.sampler = read_sampler(self.context, sampler)
            case syntax.StepCacheBlock() as cache:
                self.step_cache = read_step_cache(self.context, cache)
            case syntax.BudgetBlock(bounds=bounds):
                self._bounds("budget", bounds, self.context.schema.budget, self.context.schema.verify)
            case syntax.VerifyBlock(bounds=bounds):
                self._bounds("verify", bounds, self.context.schema.verify, self.context.schema.budget)
            case syntax.MetricLine() as metric:
                selector = self.selectors.resolve(metric.selector, linked.scope)
                self.metrics |= read_metric_line(self.context, metric, selector)
            case syntax.MinimizeLine() as line:
                self.minimize = check_objective(self.context, line) or self.minimize
            case syntax.ExportBlock() as export:
                self._export(export)
            case syntax.ReconstructBlock(settings=settings) as block:
                given = self._given(settings)
                self.reconstruct = (
                    build(self.context, "reconstruct", Reconstruct, given, block.span) or self.reconstruct
                )
            case syntax.DepthBlock(settings=settings):
                self.depth |= read_depth(self.context, settings, self.context.schema.depth)

    def _rule(self, node: syntax.RuleBlock, linked: Linked) -> None:
        selector = self.selectors.resolve(node.selector, linked.scope)
        assignments: dict[str, Assignment | None] = {}
        placed: dict[str, Span] = {}
        for setting in node.settings:
            name = setting.name.text
            if name in placed:
                self.context.twice(f"`{name}` is given twice", setting.name.span, placed[name])
                continue
            placed[name] = setting.name.span
            assignments[name] = self._assignment(setting)
        if "keep" in placed and len(placed) > 1:
            help = "remove `keep`, or the other settings"
            note = "`keep` leaves a layer as it is"
            self.context.report.error("Q232", "a rule either keeps or sets", placed["keep"], help=help, note=note)
        if not node.settings:
            head = Span(node.span.source, node.span.start, node.selector.span.end)
            self.context.report.warning("Q242", "the rule sets nothing", head, help="remove it, or write `keep`")
        good = tuple(one for one in assignments.values() if one is not None)
        if selector is not None and self._belong(node, classes(selector)):
            self.rules.append(Rule(selector, good, node.span, linked.source.preset))

    def _belong(self, node: syntax.RuleBlock, named: frozenset[str]) -> bool:
        """Whether the classes that a rule names have the properties that it sets."""
        schema, sound = self.context.schema, True
        for setting in node.settings:
            known = schema.properties.get(setting.name.text)
            having = (known.subjects if known else ()) or (*schema.kinds, ANY, *(known.also if known else ()))
            wrong = sorted(named.difference(having)) if known or setting.name.text == "keep" else []
            if wrong:
                sound = False
                message = f"`{setting.name.text}` is nothing that `{wrong[0]}` has"
                help = f"write `rule {known.subjects[0]} {{ ... }}`" if known and known.subjects else None
                self.context.report.error("Q560", message, setting.name.span, help=help or "give it a rule of its own")
        return sound

    def _assignment(self, setting: syntax.PropertySetting) -> Assignment | None:
        name, schema = setting.name, self.context.schema
        if setting.value is None:
            self._bare_word(setting)
            return Assignment("keep", KEEP, setting.span) if name.text == "keep" else None
        known = schema.properties.get(name.text)
        if known is None:
            help = (
                "write `keep` alone" if name.text == "keep" else did_you_mean(name.text, schema.properties, "property")
            )
            self.context.report.error("Q201", f"unknown property `{name.text}`", name.span, help=help)
            return None
        return self._value(known, setting.value, setting.span)

    def _value(self, known: Property, value: syntax.Alternatives, span: Span) -> Assignment | None:
        if known.methods:
            parts = [replace(value, terms=(one,), span=one.span) for one in value.terms] if known.many else [value]
            methods = [(read_method(self.context, known.name, one, known.methods), one.span) for one in parts]
            found = tuple(Assignment(known.name, one[1], at, one[0]) for one, at in methods if one is not None)
            if len(found) < len(parts):
                return None
            return replace(found[0], span=span) if len(found) == 1 else Assignment(known.name, found, span)
        if known.option is not None:
            read = read_option(self.context, known.option, value)
            return None if read is WRONG else Assignment(known.name, read, span, option_text(known.option, read))
        formats = self.context.schema.formats if known.formats is None else known.formats
        specs = read_formats(self.context, value, formats)
        return None if specs is None else Assignment(known.name, specs, span)

    def _bare_word(self, setting: syntax.PropertySetting) -> None:
        name, properties = setting.name.text, self.context.schema.properties
        if name == "keep":
            return
        help = did_you_mean(name, ["keep"], "property")
        head = name.rstrip("0123456789")
        if name in properties:
            help = f"write `{name} = ...`"
        elif head in self.context.schema.formats or name in self.context.schema.formats:
            formats = next((one for one, known in properties.items() if not known.methods), "weights")
            help = f"write `{formats} = {name}`; candidates are separated by `|`"
        self.context.report.error("Q231", f"expected `name = value` or `keep`, found `{name}`", setting.span, help=help)

    def _target(self, node: syntax.TargetLine) -> TargetName | None:
        known = self.context.schema.targets.get(node.name.text)
        if known is None:
            help = did_you_mean(node.name.text, self.context.schema.targets, "target")
            self.context.report.error("Q226", f"unknown target `{node.name.text}`", node.name.span, help=help)
            return None
        words = []
        for argument in node.arguments:
            literal = only_literal(argument.value)
            word = None if literal is None or argument.name is not None else self.context.literal(literal)
            text = "" if word is None else word.text if isinstance(word, syntax.Name | syntax.String) else ""
            if not text or (known.arguments is not None and text not in known.arguments):
                shown = argument.span.text
                help = did_you_mean(shown, known.arguments or ()) or f"`{known.name}` has no arguments"
                message = f"unknown argument of `{known.name}`: `{shown}`"
                self.context.report.error("Q226", message, argument.span, help=help)
            words.append(text)
        if known.one and len(words) != 1:
            help = f"write `target {known.name}({(known.arguments or ('...',))[0]})`"
            message = f"`{known.name}` takes one of {', '.join(f'`{one}`' for one in known.arguments or ())}"
            self.context.report.error("Q250", message, node.span, help=help)
            return None
        return TargetName(known.name, tuple(words), node.span)

    def _graph(self, floats: syntax.Name) -> GraphFloats | None:
        known = self.context.schema.floats
        if floats.text not in known:
            help = did_you_mean(floats.text, known)
            self.context.report.error("Q540", f"`graph` takes no `{floats.text}`", floats.span, help=help)
            return None
        return None if floats.text == known[0] else GraphFloats(floats.text, floats.span)

    def _given(self, settings: Sequence[syntax.PropertySetting]) -> list[GivenOption]:
        given = []
        for one in settings:
            if one.value is None:
                help = f"write `{one.name.text} = ...`"
                self.context.report.error(
                    "Q231", f"expected `name = value`, found `{one.name.text}`", one.span, help=help
                )
            else:
                given.append(GivenOption(one.name, one.value, one.span))
        return given

    def _bounds(
        self, block: str, bounds: Sequence[syntax.BoundTree], known: Mapping[str, Metric], other: Mapping[str, Metric]
    ) -> None:
        here: dict[tuple[str, str | None, str], Bound] = {}
        for node in bounds:
            bound = read_bound(self.context, node, block, known, other)
            if bound is None:
                continue
            key = (bound.metric, bound.argument, bound.quantity.unit)
            if key in here:
                message = f"`{bound.metric}` is bounded twice"
                self.context.twice(message, node.span, here[key].span, help="keep the tighter one")
                continue
            here[key] = bound
        # A bound of the same metric, in whatever unit and with whatever argument, replaces what a used policy asked.
        replaced = {metric for metric, *_ in here}
        kept = {key: one for key, one in self.bounds[block].items() if key[0] not in replaced}
        self.bounds[block] = kept | here

    def _export(self, node: syntax.ExportBlock) -> None:
        schema = self.context.schema.export
        if schema is None:
            self.context.report.error("Q202", "`export` has no options", node.span)
            return
        given = self._given(node.settings)
        names = [one.name.text for one in given if one.name is not None]
        for at, one in enumerate(given):
            if one.name is not None and one.name.text in names[:at]:
                self.context.report.error(
                    "Q206", f"option `{one.name.text}` is given twice", one.span, help="remove one"
                )
            elif one.name is not None:
                self.export[one.name.text] = one

    def _warn_of_unused(self) -> None:
        own = self.linker.scopes[self.tree.span.source.name]
        for name, let in own.lets.items():
            if name not in own.named:
                help = f"remove it, or write `rule {name} {{ ... }}`"
                self.context.report.warning("Q240", f"selector `{name}` is never used", let.name.span, help=help)
        for name, one in self.context.params.items():
            if one.ours and not one.used:
                help = f"remove it, or write `${name}` where it's meant"
                self.context.report.warning("Q240", f"parameter `{name}` is never used", one.declared, help=help)
        ruling = (
            *(syntax.GraphLine, syntax.RuleBlock, syntax.UseLine, syntax.DepthBlock, syntax.AdapterLine),
            *(syntax.StepCacheBlock, syntax.SamplerLine),
        )
        if not any(isinstance(one.statement, ruling) for one in self.linker.statements):
            message = f"`{self.tree.span.source.name}` has no rule, so nothing is compressed"
            help = "add `rule any { weights = int8 channel }`, or `use` a preset"
            self.context.report.warning("Q243", message, help=help)
