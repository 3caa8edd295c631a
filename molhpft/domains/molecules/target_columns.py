"""Which columns of a table are its targets, and what their cells mean as labels.

A cell is a number, one of the two words of a question, or a missing mark. Nothing is guessed in
silence: where more than one column could be meant, or a column could mean more than one thing, the
user is asked; whatever else was decided stands in a note.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import nan
from typing import Literal, get_args

import torch
from torch import Tensor

from molhpft.domains.files import listed
from molhpft.domains.molecules.splits import SPELLINGS
from molhpft.domains.molecules.table_files import SHOWN, Sheet
from molhpft.domains.molecules.table_options import how_to_give

Kind = Literal["classification", "regression"]
AnyKind = Literal["auto", "classification", "regression"]

ALL = "all"
"""Instead of the names of target columns: every column that can be one."""

MISSING = ("", "-", "NA", "N/A", "#N/A", "<NA>", "NaN", "null", "None")
"""Marks of a missing label, in any case."""

_MISSING = frozenset(mark.lower() for mark in MISSING)
_PLAIN = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(_PLAIN, re.ASCII)
_CENSORED = re.compile(rf"(?:[<>≤≥]=?|~)\s*{_PLAIN}", re.ASCII)
_UNIT = r"(?:[pnuµm]?M|[nuµm]?g/m?[lL]|g/mol|kcal/mol|kJ/mol|°C|K|k?Da|ppm|h|min)"
_WITH_UNIT = "a number with its unit"

# what people write for numbers, whatever `float` makes of it; the last two are none
_ODD = (
    ("a percent sign", re.compile(rf"{_PLAIN}\s*%", re.ASCII)),
    ("a censored value", _CENSORED),
    ("a decimal comma or thousands separator", re.compile(r"[+-]?\d+(?:[,'\s]\d+)+(?:\.\d*)?")),
    ("a minus sign other than -", re.compile(r"[\u2212\u2010-\u2015]\s*[\d.,]+")),
    ("infinity", re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)),
    (_WITH_UNIT, re.compile(rf"{_PLAIN}\s*{_UNIT}", re.ASCII)),
    ("a date", re.compile(r"(?:\d{4}[-/.]\d\d?[-/.]\d\d?|(?:\d\d?[-/.]){2}\d{2,4})(?:[ T].*)?")),
    ("an underscore", re.compile(r"[+-]?\d+(?:_\d+)+(?:\.\d+)?", re.ASCII)),
)
_NO_NUMBERS = ("a date", "an underscore")

# which of two words is 1; of any others the later one in the alphabet
_YES = frozenset(
    ("true", "t", "yes", "y", "active", "positive", "pos", "+", "toxic", "hit", "inhibitor")
)

# id, mol_id, moleculeID, index, no., pandas' own; no lipid, no refractive index
_INDEX = re.compile(
    r"(?i:(?:.*[ _.-])?(?:id|idx|cid|sid)|index|nr\.|no\.|#|unnamed: \d+)"
    r"|.*[a-z]I[Dd]|__index_level_\d+__"
)
# names of an index where it holds another whole number in every row; NO is also nitric oxide
_PERHAPS_INDEX = re.compile(r"(?i:nr|no|row)")
_MORE_CLASSES = "write more than two classes as a column of 0 and 1 for each, or as numbers"
_DECADES = 1_000  # times the least label is the greatest
_MOST_CLASSES = 20  # words in a column that may be classes; names and comments are more
_SAY_WHICH = how_to_give("target_columns")
_ANOTHER = f"name another column by {_SAY_WHICH}"
_SAY_NUMBERS = how_to_give("kind", "regression")


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no label."""
    return cell.lower() in _MISSING


def labels_of(cells: Iterable[str]) -> dict[str, str]:
    """The label of each distinct cell of a column: its first spelling, empty where it is missing.

    Cells that differ in case alone, or are the same number, are one label. Beside `+`, the missing
    mark `-` is a label.

    >>> labels_of(["Yes", "no", "YES", "n/a"])
    {'Yes': 'Yes', 'no': 'no', 'YES': 'Yes', 'n/a': ''}
    """
    distinct = dict.fromkeys(cells)
    first: dict[str | float, str] = {}
    labels = {}
    for cell in distinct:
        if is_missing(cell) and not (cell == "-" and "+" in distinct):
            labels[cell] = ""
            continue
        value = number(cell)
        labels[cell] = first.setdefault(cell.lower() if value is None else value, cell)
    return labels


def number(cell: str) -> float | None:
    """A number as spreadsheets write it: sign, digits, decimal point, exponent; else None.

    Nothing else that `float` reads is one: `2024_0001` is a name, `inf` and `nan` are words.
    """
    return float(cell) if _NUMBER.fullmatch(cell) else None


def is_censored(cell: str) -> bool:
    """Whether a cell bounds a number, as `>1.5` does."""
    return _CENSORED.fullmatch(cell) is not None


def oddity(cell: str) -> str:
    """What keeps a cell from being a number, where that can be told; else empty."""
    return next((what for what, pattern in _ODD if pattern.fullmatch(cell)), "")


def is_numeric(cell: str) -> bool:
    """Whether a person would take a cell for a number, plainly written or not."""
    return number(cell) is not None or oddity(cell) not in ("", *_NO_NUMBERS)


def ordered_words(one: str, other: str) -> tuple[str, str]:
    """Two words as the labels 0 and 1: yes, true, active, positive, ... are 1.

    Of two words that are not known, the later one in the alphabet is 1, whatever their case.
    """
    first, last = sorted((one, other), key=str.lower)
    return (last, first) if first.lower() in _YES and last.lower() not in _YES else (first, last)


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels of n rows and t target columns.

    Attributes:
        names: (t,), of the columns.
        values: float64 (n, t), NaN where missing.
        kind: what all of them are.
        classes: (t,), of a classification what the table writes for 0 and for 1; else empty.
        notes: sentences about which columns were taken and how their cells were read.
    """

    names: tuple[str, ...]
    values: Tensor
    kind: Kind
    classes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def read_targets(
    sheet: Sheet, wanted: Sequence[str] | None, kind: AnyKind, *, besides: set[str | None]
) -> Targets:
    """Labels of the columns that are asked for, or of the only one that can be meant.

    Args:
        sheet: the table.
        wanted: names of columns; ("all",) for every candidate, None for the only one.
        kind: what the labels are; auto decides for each column.
        besides: columns that are no targets.

    Raises:
        ValueError: no column can be meant, or several, or labels are of two kinds, or a cell is no
            label; the message says where and why.
    """
    names = [name for name in sheet.names if name not in besides]
    asked = wanted is not None and (tuple(wanted) != (ALL,) or ALL in names)
    if asked:
        chosen, notes = _asked_for(sheet, list(wanted or ()), names)
    else:
        chosen, notes = _candidates(sheet, names, several=wanted is not None)
    columns = {name: _read(_Column(sheet, name), kind, asked=asked) for name in chosen}
    return Targets(
        names=tuple(columns),
        values=torch.stack([column.values for column in columns.values()], 1),
        kind=_common_kind(sheet, columns),
        classes=tuple(column.classes for column in columns.values() if column.classes),
        notes=(*notes, *(note for column in columns.values() for note in column.notes)),
    )


@dataclass(frozen=True, eq=False)
class _Column:
    """A column of a table: which of its cells are labels, numbers, words."""

    sheet: Sheet
    name: str

    @property
    def cells(self) -> tuple[str, ...]:
        return self.sheet.columns[self.name]

    @cached_property
    def _first_rows(self) -> dict[str, int]:
        """All cells, each once, and the first row that has it."""
        rows: dict[str, int] = {}
        for row, cell in enumerate(self.cells):
            rows.setdefault(cell, row)
        return rows

    @cached_property
    def _spelled(self) -> dict[str, str]:
        return labels_of(self._first_rows)

    @cached_property
    def labels(self) -> dict[str, int]:
        """Cells that are no missing marks, each once, and the first row that has it."""
        return {cell: row for cell, row in self._first_rows.items() if self._spelled[cell]}

    @cached_property
    def missing(self) -> frozenset[str]:
        """Cells that are missing marks."""
        return frozenset(cell for cell, label in self._spelled.items() if not label)

    @cached_property
    def labelled(self) -> int:
        """Number of rows with a label."""
        return sum(cell not in self.missing for cell in self.cells)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Labels that are numbers."""
        return {cell: value for cell in self.labels if (value := number(cell)) is not None}

    @property
    def words(self) -> list[str]:
        """Labels that differ by more than their case."""
        return list(dict.fromkeys(self._spelled[cell] for cell in self.labels))

    @property
    def counts(self) -> Counter[str]:
        """Number of rows of each of the words."""
        return Counter(label for cell in self.cells if (label := self._spelled[cell]))

    @property
    def is_of_words(self) -> bool:
        """Whether labels are words; two that look like numbers with a unit (`3M`) may be, too."""
        words = ("", _WITH_UNIT) if len(self.words) == 2 else ("",)
        return all(number(label) is None and oddity(label) in words for label in self.labels)

    @property
    def is_of_two_words(self) -> bool:
        """Whether labels are two words, and not just once each."""
        return self.is_of_words and len(self.words) == 2 < self.labelled

    @property
    def odd(self) -> str | None:
        """The first label that is no number."""
        return next((label for label in self.labels if label not in self.numbers), None)

    def at(self, row: int) -> str:
        """Where a cell is and what it holds."""
        cell = self.cells[row]
        shown = cell if len(cell) <= 40 else f"{cell[:40]}..."
        return f"{self.sheet.unit} {self.sheet.lines[row]} has {shown!r}"

    def wrong(self, label: str) -> str:
        """Where a label is that is no number, and why it is none."""
        return f"{self.at(self.labels[label])}, {oddity(label) or 'no number'}"

    def error(self, sentence: str) -> ValueError:
        """What is wrong with the column, in the words that follow its name."""
        return ValueError(f"column {self.name!r} of {self.sheet.path} {sentence}")

    def tensor(self, values: dict[str, float]) -> Tensor:
        """Values of the labels, float64 (n,), NaN for all other cells."""
        return torch.tensor([values.get(cell, nan) for cell in self.cells], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class _Labels:
    """A column as labels: as `Targets`, of one target."""

    values: Tensor
    kind: Kind
    classes: tuple[str, str] | None
    notes: list[str]


def _asked_for(sheet: Sheet, wanted: list[str], names: list[str]) -> tuple[list[str], list[str]]:
    """The columns that are asked for, and a sentence about the others."""
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"targets of {sheet.path} should be columns, each named once; got "
            f"{', '.join(wanted) or 'none'} of the columns: {listed(sheet.names, most=SHOWN)}"
        )
    for name in wanted:
        sheet.column(name, option="target_columns")
    others = [name for name in names if name not in wanted]
    return wanted, [f"Columns not asked for: {listed(others, most=SHOWN)}."] if others else []


def _candidates(sheet: Sheet, names: list[str], *, several: bool) -> tuple[list[str], list[str]]:
    """Columns that can be targets, one alone if not `several`, and sentences about the others."""
    reasons = {name: _why_not(sheet, name) for name in names}
    chosen = [name for name, reason in reasons.items() if not reason]
    left = listed([f"{name} ({reason})" for name, reason in reasons.items() if reason], most=SHOWN)
    if not chosen:
        none = f"none of its columns is one: {left}" if left else "it has no other"
        columns = [_Column(sheet, name) for name in names if name in sheet.columns]
        classes = any(_is_of_more_classes(one) for one in columns if not _why_never(one))
        remedy = f"; {_MORE_CLASSES}" if classes else ""
        raise ValueError(
            f"{sheet.path} should have a column of labels, numbers or two words, beside the "
            f"molecules; {none}{remedy}"
        )
    if not several and len(chosen) > 1:
        contents = [f"{name} ({_contents(_Column(sheet, name))})" for name in chosen]
        raise ValueError(
            f"say which columns of {sheet.path} are the targets by {_SAY_WHICH} ({ALL} for all of "
            f"them); there are {len(chosen):,} that can be: {listed(contents, most=SHOWN)}"
        )
    if not left:
        return chosen, []
    alone = [] if several else [f"Target: {chosen[0]}, the only column that can be one."]
    return chosen, [*alone, f"Columns left out: {left}."]


def _why_not(sheet: Sheet, name: str) -> str:
    """Why nobody would predict a column, with the cell that tells; empty for a candidate."""
    if name not in sheet.columns:
        return f"of type {sheet.types[name]}"
    column = _Column(sheet, name)
    if reason := _why_never(column):
        return reason
    first = column.at(next(iter(column.labels.values())))
    odd = column.odd
    return _why_not_numbers(column, first) if odd is None else _why_not_words(column, first, odd)


def _why_never(column: _Column) -> str:
    """Why a column holds no labels, whatever its cells are: by its name, or as it names splits."""
    if not column.labels:
        return "empty"
    name, first = column.name, column.at(next(iter(column.labels.values())))
    if name in column.sheet.nameless:
        return f"without a name, {first}"
    if _INDEX.fullmatch(name) or (_PERHAPS_INDEX.fullmatch(name) and _is_numbering(column)):
        return f"named like an index, {first}"
    if {label.lower() for label in column.labels} <= SPELLINGS.keys():
        return f"names splits, {first}"
    return ""


def _why_not_words(column: _Column, first: str, odd: str) -> str:
    numeric = {label for label in column.labels if is_numeric(label)}
    if (
        column.is_of_two_words
        or 2 * sum(map(numeric.__contains__, column.cells)) >= column.labelled
    ):
        return ""
    if _is_of_more_classes(column):
        return f"{len(column.words)} words, {first}"
    return column.wrong(odd)


def _is_of_more_classes(column: _Column) -> bool:
    """Whether labels are more than two words, most of which occur several times."""
    if not column.is_of_words or not 2 < len(column.words) <= _MOST_CLASSES:
        return False
    several = sum(count > 1 for count in column.counts.values())
    return 2 * several > len(column.words)


def _is_numbering(column: _Column) -> bool:
    """Whether every row has a whole number of its own."""
    values = set(column.numbers.values())
    return all(value.is_integer() for value in values) and len(values) == len(column.cells)


def _why_not_numbers(column: _Column, first: str) -> str:
    values = list(column.numbers.values())
    if len(values) == 1:
        return f"always the same, {first}"
    # a row number: whole, in every row another one, each above the last
    upwards = all(low < high for low, high in pairwise(values))
    if upwards and _is_numbering(column) and len(values) >= 3:
        return f"counts upwards, {column.at(0)}, {column.at(1)}"
    return ""


def _contents(column: _Column) -> str:
    """A candidate in a few words, for the question which one is meant."""
    if column.is_of_two_words:
        return " and ".join(map(repr, column.words))
    if column.odd is not None:
        return f"numbers, but {column.wrong(column.odd)}"
    return " and ".join(sorted(column.labels)) if len(column.labels) == 2 else "numbers"


def _read(column: _Column, kind: AnyKind, *, asked: bool) -> _Labels:
    """A column as labels.

    Args:
        column: to read.
        kind: what the user says the labels are.
        asked: whether the user has named the column; censored values then count as missing.

    Raises:
        ValueError: a cell is none of the labels that there may be; the message says which.
    """
    labels, notes = column.labels, _missing_marks(column)
    censored = [label for label in labels if is_censored(label)]
    if asked and censored and column.numbers and kind != "classification":
        count = sum(cell in censored for cell in column.cells)
        what, where = "censored label", column.at(labels[censored[0]])
        notes.append(missing_note(column.name, count, where, what=what))
        labels = {label: row for label, row in labels.items() if label not in censored}
    if labels and kind != "regression" and column.is_of_words:
        return _words(column, notes)
    for label in labels:
        if label not in column.numbers:
            words = "" if kind == "regression" else ", or two words"
            wrong = f"{column.wrong(label)}{_remedy(label)}"
            raise column.error(f"should hold numbers{words}; {wrong}")
    if kind == "regression" or (kind == "auto" and not _is_question(column)):
        return _numbers(column, notes)
    return _two_numbers(column, notes)


def _remedy(label: str) -> str:
    """What to do about a label that should be a number."""
    if is_censored(label):
        return f"; name the column by {_SAY_WHICH}, and such labels count as missing"
    if is_numeric(label):
        return "; write numbers as -1234.5"
    return "; leave the cell empty where nothing was measured"


def _missing_marks(column: _Column) -> list[str]:
    """A sentence about missing labels that are written out, if there are any."""
    rows = [row for row, cell in enumerate(column.cells) if cell and cell in column.missing]
    if not rows:
        return []
    return [missing_note(column.name, len(rows), column.at(rows[0]))]


def missing_note(name: str, count: int, first: str, *, what: str = "label") -> str:
    """A sentence about labels of a target that count as missing.

    >>> missing_note("logD", 2, "line 3 has '>4'", what="censored label")
    "logD: 2 censored labels count as missing, line 3 has '>4'."
    """
    counted = f"1 {what} counts" if count == 1 else f"{count:,} {what}s count"
    return f"{name}: {counted} as missing, {first}."


def _is_question(column: _Column) -> bool:
    """Whether numbers are two classes: 0 and 1, or any other two whole ones, not just once each.

    Raises:
        ValueError: they may be, with a third number for missing labels.
    """
    values = set(column.numbers.values())
    if values <= {0.0, 1.0}:
        return True
    if not all(value.is_integer() for value in values):
        return False
    others = sorted(values - {0.0, 1.0})
    if len(others) == 1 and (len(values) == 3 or values == {-1.0, 0.0}):
        label = next(label for label, value in column.numbers.items() if value == others[0])
        raise column.error(
            f"has the labels {', '.join(f'{value:.15g}' for value in sorted(values))}, "
            f"{column.at(column.labels[label])}: leave such cells empty if the label is missing "
            f"there; if all are numbers, say {_SAY_NUMBERS}"
        )
    return len(values) == 2 < sum(cell in column.numbers for cell in column.cells)


def _numbers(column: _Column, notes: list[str]) -> _Labels:
    values = column.tensor(column.numbers)
    for row in values.float().isinf().nonzero().flatten().tolist()[:1]:
        raise column.error(f"should hold numbers up to 3e38; {column.at(row)}")
    return _Labels(values, "regression", None, notes + _decades(column))


def _decades(column: _Column) -> list[str]:
    """`decades_notes` of the numbers of a column."""
    if not column.numbers:
        return []
    low, high = (choose(column.numbers, key=column.numbers.__getitem__) for choose in (min, max))
    ends = [(column.numbers[label], column.at(column.labels[label])) for label in (low, high)]
    return decades_notes(column.name, *ends)


def decades_notes(name: str, least: tuple[float, str], greatest: tuple[float, str]) -> list[str]:
    """A note on positive numbers of many orders of magnitude, such as concentrations.

    >>> decades_notes("IC50", (0.5, "line 4 has '0.5'"), (30.0, "line 3 has '30'"))
    []

    Args:
        name: of the target.
        least: number, and where it is.
        greatest: likewise.
    """
    if not 0 < _DECADES * least[0] < greatest[0]:
        return []
    return [
        f"{name}: {least[1]}, {greatest[1]}: nearly all of the error is that of the "
        "greatest numbers; learn the log10 of concentrations and the like."
    ]


def _two_numbers(column: _Column, notes: list[str]) -> _Labels:
    values = sorted(set(column.numbers.values()))
    if set(values) <= {0.0, 1.0}:
        return _Labels(column.tensor(column.numbers), "classification", ("0", "1"), notes)
    if len(values) != 2:
        odd = next(label for label, value in column.numbers.items() if value not in (0.0, 1.0))
        raise column.error(
            "should hold two classes, 0 and 1 or any other two labels; "
            f"it has {len(values):,} number{'s' * (len(values) != 1)}, "
            f"{column.at(column.labels[odd])}; {_MORE_CLASSES if len(values) > 2 else _ANOTHER}"
        )
    coded = {label: float(value == values[1]) for label, value in column.numbers.items()}
    return _question(column, coded, (f"{values[0]:.15g}", f"{values[1]:.15g}"), notes)


def _words(column: _Column, notes: list[str]) -> _Labels:
    words = column.words
    if len(words) != 2:
        row = column.labels[words[min(2, len(words) - 1)]]
        raise column.error(
            "should hold numbers, or two words; "
            f"it has {len(words):,} word{'s' * (len(words) != 1)}, {column.at(row)}; "
            + (_MORE_CLASSES if _is_of_more_classes(column) else _ANOTHER)
        )
    pair = ordered_words(*words)
    if any(oddity(word) == _WITH_UNIT for word in words):
        first, second = map(repr, words)
        notes = [*notes, f"{column.name}: {first} and {second} are two words, no quantities."]
    coded = {label: float(label.lower() == pair[1].lower()) for label in column.labels}
    return _question(column, coded, pair, notes)


def _question(
    column: _Column, coded: dict[str, float], pair: tuple[str, str], notes: list[str]
) -> _Labels:
    """Labels of two classes that the table writes otherwise than 0 and 1."""
    values = column.tensor(coded)
    counts = f"{int((values == 1).sum()):,} of {int((~values.isnan()).sum()):,} labels"
    coding = f"{column.name}: 1 is {pair[1]!r} ({counts}), 0 is {pair[0]!r}."
    return _Labels(values, "classification", pair, [coding, *notes])


def _common_kind(sheet: Sheet, columns: dict[str, _Labels]) -> Kind:
    names = {kind: [n for n, c in columns.items() if c.kind == kind] for kind in get_args(Kind)}
    if all(names.values()):
        classes, numbers = (listed(column, most=SHOWN) for column in names.values())
        raise ValueError(
            f"targets of {sheet.path} are of two kinds, classes ({classes}) and numbers "
            f"({numbers}): choose those of one kind by {_SAY_WHICH}; or learn all as numbers by "
            f"{_SAY_NUMBERS}"
        )
    return next(iter(columns.values())).kind
