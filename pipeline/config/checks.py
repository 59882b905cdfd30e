"""Whether the sections space and tune fit the keys that they name, and each other."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from pipeline.config.axes import Axis, Choices, Range, active, is_choices
from pipeline.config.extra import EXTRA, declared
from pipeline.config.messages import described, sentence, shown, unknown
from pipeline.config.names import kind_of, legal_names, section_of
from pipeline.config.params import Params
from pipeline.config.roles import searchable, why_not_searchable
from pipeline.config.section import Scalar, Section
from pipeline.errors import ConfigError


class SearchCheck:
    """Checks the sections space and tune of a file, whose other sections may be wrong as well."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.sections = {
            name: defaults | content[name] if isinstance(content.get(name), dict) else defaults
            for name, defaults in Params().model_dump().items()
        }
        self.axes: dict[str, Axis] = {}
        for name, axis in self.sections["space"].items():
            try:
                self.axes[name] = (Choices if is_choices(axis) else Range).model_validate(axis)
            except ValidationError:
                continue  # the check of the whole file reports it
        self.extra: Mapping[str, type[Section]] | None = None  # None: a function is missing, as `completed` says
        with suppress(ConfigError):
            self.extra = declared(content)
        self.own: dict[str, Any] = {}  # the legal ones of the file's own values and of the defaults
        for name in legal_names():
            section, _, key = name.partition(".")
            if not self._refusals(name, self.sections[section][key], name):
                self.own[name] = self.sections[section][key]
        extra = self.sections["model"]["extra"]
        self.own |= {f"{EXTRA}{key}": value for key, value in extra.items()} if isinstance(extra, Mapping) else {}

    def problems(self) -> list[str]:
        """What is wrong with the space, whatever the values beside it."""
        found: list[str] = []
        for name in self.sections["space"]:
            if why := why_not_searchable(str(name)):
                found.append(f"space.{name} can't be searched: {why}")
            elif name not in searchable() and name not in (self.extra or ()):
                if not (str(name).startswith(EXTRA) and self.extra is None):
                    found.append(unknown(f"space.{name}", [f"space.{other}" for other in self.extra or ()]))
            elif name not in self.axes or not (wrong := self._check_axis(name, self.axes[name])):
                continue
            else:
                found += wrong
            self.axes.pop(name, None)  # the other axes are not compared with a wrong one
        for name, axis in self.axes.items():
            for other, allowed in axis.when.items():
                found += self._check_condition(name, other, allowed)
        cycle = self._cycle()
        if cycle:
            found.append(f"{' and '.join(f'space.{name}' for name in cycle)} wait for each other in their `when`")
        return found

    def misfits(self) -> list[str]:
        """What does not fit together, although the space, the way to search and the values are each legal."""
        return self._check_fixed_conditions() or [*self.check_own_values(), *self._check_first(), *self._check_tune()]

    def _check_axis(self, name: str, axis: Axis) -> list[str]:
        where = f"space.{name}"
        kind = self._kind(name)
        if isinstance(axis, Choices):
            refused = [refusal for value in axis.choices for refusal in self._refusals(name, value, name)]
            found = [f"{where} holds a value that {name} can't have: {refusal}" for refusal in refused]
            twice = sorted({shown(value) for value in axis.choices if axis.choices.count(value) > 1})
            return found + [f"{where} holds {', '.join(twice)} twice"] * bool(twice)
        if kind not in (int, float):
            return [f"{where} must be a list of choices, as {name} is no number"]
        ends = {"low": axis.low, "high": axis.high}
        if found := [each for end, value in ends.items() for each in self._refusals(name, value, f"{where}.{end}")]:
            return found
        if axis.low >= axis.high:
            found.append(f"{where}.low must be under {where}.high, got {shown(axis.low)} and {shown(axis.high)}")
        if axis.log and axis.low <= 0:
            found.append(f"{where}.low must be over 0 on a log scale, got {shown(axis.low)}")
        if axis.step is not None:
            if axis.log:
                found.append(f"{where}.step must be left out on a log scale, got {shown(axis.step)}")
            elif axis.step <= 0:
                found.append(f"{where}.step must be over 0, got {shown(axis.step)}")
            elif kind is int and not isinstance(axis.step, int):
                found.append(f"{where}.step must be a whole number, got {shown(axis.step)}")
            elif not found and not axis.holds(axis.high):
                below = axis.model_copy(update={"high": axis.value(int((axis.high - axis.low) / axis.step))})
                found.append(
                    f"{where}.step must lead from low to high (nearest: {shown(below.high)} and "
                    f"{shown(axis.value(below.count))}), got {shown(axis.step)} for a high of {shown(axis.high)}"
                )
        if not found and kind is int:
            for index in range(axis.count):
                if refused := self._refusals(name, axis.value(index), name):
                    return [f"{where} holds a value that {name} can't have: {refused[0]}"]
        return found

    def _check_condition(self, name: str, other: str, allowed: Sequence[Scalar]) -> list[str]:
        where = f"space.{name}.when"
        if other not in legal_names() and other not in (self.extra or ()):
            return [f"{where}: {unknown(other, list(self.extra or ()))}"]
        if other == name or other.partition(".")[0] == "tune":
            return [f"{where} must name other keys of a training, got {other}"]
        if other in self.axes:
            axis = self.axes[other]
            if isinstance(axis, Range) and axis.step is None and self._kind(other) is float:
                return [f"{where} must name a key that has choices, steps or whole numbers, got {other}"]
            return [
                f"{where} waits for {shown(value)}, which {other} is never in the space ({described(axis)})"
                for value in allowed
                if not axis.holds(value)
            ]
        return [each for value in allowed for each in self._refusals(other, value, f"{where}.{other}")]

    def _check_fixed_conditions(self) -> list[str]:
        return [
            f"space.{name}.when waits for {other} to be {' or '.join(map(shown, allowed))}, "
            f"but the file fixes it at {shown(self.own[other])}"
            for name, axis in self.axes.items()
            for other, allowed in axis.when.items()
            if other not in self.axes and self.own[other] not in allowed
        ]

    def _cycle(self) -> list[str]:
        """Keys that wait for each other in a circle by their `when`; empty if none do."""

        def walk(path: list[str]) -> list[str]:
            for other in self.axes[path[-1]].when:
                if other in path:
                    return path[path.index(other) :]
                if other in self.axes and (found := walk([*path, other])):
                    return found
            return []

        return next((found for name in self.axes if (found := walk([name])) and len(found) > 1), [])

    def check_own_values(self, names: Collection[str] | None = None) -> list[str]:
        """The file's own values, of all keys or of `names`, that lie outside the space, though trial 0 has them."""
        why = "trial 0 trains the file's own values, so widen the one or change the other"
        return [
            f"{name} is {shown(value)}, outside space.{name} ({described(self.axes[name])}); {why}"
            for name, value in active(self.axes, self.own).items()
            if not self.axes[name].holds(value) and (names is None or name in names)
        ]

    def _check_first(self) -> list[str]:
        found = []
        for number, given in enumerate(self.sections["tune"]["first"]):
            where = f"tune.first[{number}]"
            whole = active(self.axes, self.own | dict(given))
            problems = []
            for name in given:
                if name not in legal_names() and name not in (self.extra or ()):
                    problems.append(f"{where}: {unknown(name, list(self.extra or ()))}")
                elif name not in self.axes:
                    problems.append(f"{where} sets {name}, which is not in the space")
                elif name not in whole:
                    problems.append(f"{where} sets {name}, whose `when` in the space does not hold beside the others")
            problems += [
                f"{where} has {shown(value)} for {name}, outside space.{name} ({described(self.axes[name])})"
                for name, value in whole.items()
                if self._refusals(name, value, name) or not self.axes[name].holds(value)
            ]
            found += problems
        return found

    def _check_tune(self) -> list[str]:
        tune, found = self.sections["tune"], []
        if tune["sampler"] == "grid":
            endless = [
                name
                for name, axis in self.axes.items()
                if isinstance(axis, Range) and axis.step is None and self._kind(name) is float
            ]
            found += [f"tune.sampler is grid, for which space.{name} needs a step or choices" for name in endless]
        rung, epochs = tune["first_rung"], self.own["train.epochs"]
        if tune["scheduler"] == "asha" and rung > epochs:
            found.append(f"tune.first_rung must be at most train.epochs ({epochs}), got {rung}")
        return found

    def _kind(self, name: str) -> Any:
        """The type of a key's values."""
        if self.extra and name in self.extra:
            return self.extra[name].model_fields[name.removeprefix(EXTRA)].annotation
        return kind_of(name)

    def _refusals(self, name: str, value: Any, called: str) -> list[str]:
        """Why a key can't have a value, in sentences that call the key `called`."""
        section, _, key = name.partition(".")
        if self.extra and name in self.extra:
            key = name.removeprefix(EXTRA)
            try:
                self.extra[name].model_validate({key: value})
            except ValidationError as error:
                return [sentence(each, called) for each in error.errors() if each["loc"] == (key,)]
            return []
        found: dict[str, None] = {}
        for beside in self._beside(name):
            try:
                section_of(section).model_validate({**self.sections[section], **beside, key: value})
            except ValidationError as error:
                for each in error.errors():
                    if each["loc"][:1] == (key,) or each.get("ctx", {}).get("key") == name:
                        found[sentence(each, called)] = None
        return list(found)

    def _beside(self, name: str) -> list[dict[str, Any]]:
        """Other values of the section beside which the key's value must be legal, for a rule between keys."""
        if name != "model.depth":
            return [{}]
        families = self.sections["space"].get("model.family", [self.sections["model"].get("family")])
        axis = self.axes.get(name)
        if axis and "model.family" in axis.when:
            families = axis.when["model.family"]
        return [{"family": family} for family in (families if isinstance(families, list | tuple) else [families])]
