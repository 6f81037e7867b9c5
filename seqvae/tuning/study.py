"""A search on disk: one file for each fit that is known, its run beside it, and what is best."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.errors import InputError
from seqvae.runs import Run
from seqvae.runs.provenance import differences
from seqvae.storage.files import check_writable, disk_errors, is_empty, write_text
from seqvae.storage.yaml_json import read_json

if TYPE_CHECKING:
    import pandas as pd

MARK = "study.json"


@dataclass(frozen=True)
class Record:
    """What became of a fit.

    Attributes:
        number: of the fit; 0 is the one with the settings as they were.
        settings: what the search has set, by dotted name.
        score: on the validation trials; None if it failed.
        measure: the name of the score, of which more is better.
        seconds: that it took.
        error: why it failed.
        parent: the fit whose weights it began with; None: it began anew.
    """

    number: int
    settings: Mapping[str, Any]
    score: float | None
    measure: str | None
    seconds: float
    error: str | None = None
    parent: int | None = None


@dataclass(frozen=True)
class Study:
    """A search of settings and what came of it.

    Attributes:
        folder: of the study.
        facts: what it is a search of: ``config``, ``space``, ``search``, ``seed``, ``checksum``.
        records: the fits that are known, by number.
        importance: share of the scores' variance by setting; empty where fits are too few.
    """

    folder: Path
    facts: Mapping[str, Any]
    records: dict[int, Record] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: Path, facts: Mapping[str, Any]) -> Study:
        """Make the folder, or go on with it.

        Raises:
            InputError: if it holds anything else, or a search of other data or settings.
        """
        facts = json.loads(json.dumps(facts))
        if is_empty(folder):
            write_text(folder / MARK, json.dumps(facts, indent=2) + "\n")
        else:
            try:
                former = read_json(folder / MARK, MARK)
                names = list(former)
            except (OSError, ValueError, TypeError) as error:
                raise InputError(
                    f"out_dir {str(folder)!r} is not empty and no study; give a new folder"
                ) from error
            if former.get("checksum") != facts["checksum"]:
                raise InputError(
                    f"out_dir {str(folder)!r} holds a study of other data; give a new folder"
                )
            changed = [
                words
                for name in dict.fromkeys([*names, *facts])
                for words in differences(former.get(name), facts.get(name), name)
            ]
            if changed:
                raise InputError(
                    f"{changed[0]}; cannot go on with the study in {str(folder)!r} with another "
                    "setting; give a new folder"
                )
        with disk_errors(f"out_dir {str(folder)!r}"):
            (folder / "fits").mkdir(exist_ok=True)
        check_writable(folder / "fits")
        study = cls(folder, facts)
        for path in sorted((folder / "fits").glob("*.json")):
            record = _read(path)
            study.records[record.number] = record
        return study

    def place(self, number: int) -> Path:
        """Return the run folder of a fit."""
        return self.folder / "fits" / f"{number:04d}"

    def add(self, record: Record) -> None:
        """Note what became of a fit; it is known from then on, whatever becomes of the others."""
        write_text(self._note(record.number), json.dumps(asdict(record), indent=2) + "\n")
        self.records[record.number] = record

    def find(self, number: int) -> bool:
        """Look for what became of a fit that another command makes, and whether it is known."""
        if self._note(number).exists():
            self.records[number] = _read(self._note(number))
        return number in self.records

    def forget(self, number: int, *, written: bool) -> None:
        """Let a fit be unknown again, and its file gone, if that is ours."""
        del self.records[number]
        if written:
            self._note(number).unlink()

    def _note(self, number: int) -> Path:
        return self.place(number).with_suffix(".json")

    def tried(self, before: int | None = None) -> list[tuple[Mapping[str, Any], float | None]]:
        """Return settings and score of each fit, in order, of those before a number."""
        return [
            (self.settings_of(number), self.records[number].score)
            for number in sorted(self.records)
            if before is None or number < before
        ]

    def settings_of(self, number: int) -> Mapping[str, Any]:
        """Return what the settings of a fit were, those that were left alone, too."""
        return {**self.facts["former"], **self.records[number].settings}

    @property
    def best(self) -> Record:
        """The fit of the highest score, the first of these.

        Raises:
            InputError: if none has a score.
        """
        scores = {n: r.score for n, r in sorted(self.records.items()) if r.score is not None}
        if not scores:
            errors = [record.error for record in self.records.values() if record.error]
            raise InputError(f"no fit could be scored; the first: {errors[0] if errors else '-'}")
        return self.records[max(scores, key=scores.__getitem__)]

    @property
    def gain(self) -> float | None:
        """What the best fit scores more than the settings as they were; None if these failed.

        None of a population, too, whose first fits have learned for one generation only.
        """
        if "population" in self.facts:
            return None
        former = self.records[0].score if 0 in self.records else None
        best = self.best.score
        return None if former is None or best is None else best - former

    @property
    def table(self) -> pd.DataFrame:
        """A row for each fit: ``number``, ``score``, ``seconds``, ``error``, and each setting.

        Of a population ``parent``, too.
        """
        import pandas as pd

        rows = []
        for number, record in sorted(self.records.items()):
            row = {key: value for key, value in asdict(record).items() if key != "settings"}
            if "population" not in self.facts:
                del row["parent"]
            rows.append(row | dict(self.settings_of(number)))
        return pd.DataFrame(rows)

    def run(self, number: int | None = None) -> Run:
        """Return the run of a fit; None: of the best."""
        return Run(self.place(self.best.number if number is None else number))


def _read(path: Path) -> Record:
    try:
        return Record(**read_json(path, str(path)))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not what tune writes; remove it") from error
