"""Run directories: configuration, crash-safe progress and results.

Files are written whole and renamed into place; scores are appended line by line, and a
line that a kill left incomplete is dropped. Whenever a run is killed, the next run
resumes from the complete lines.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zcpt_jax.io._run_lines import (
    decision_problem,
    to_floats,
    to_json,
    to_text,
    validation_problem,
)
from zcpt_jax.io.files import (
    CONFIG,
    append,
    complete_lines,
    open_config,
    read_json,
    write_atomically,
)
from zcpt_jax.io.genotype_file import GENOTYPE
from zcpt_jax.io.lock import lock_folder
from zcpt_jax.json_text import parse_json
from zcpt_jax.scoring.minibatches import VALIDATION_BLOCK
from zcpt_jax.search.memory import DecisionRecord
from zcpt_jax.types import InputError

DECISIONS, VALIDATION = "decisions.jsonl", "validation.jsonl"
TIMINGS, REPORT = "timings.json", "report.html"


class RunDirectory:
    """A search on disk, passed to the search as its memory.

    Attributes:
      path: path of the folder.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        environment: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        repair: bool = False,
    ) -> None:
        """Create the folder, or open it to resume.

        Args:
          path: path of the folder.
          config: everything that determines the result. A folder made with another
            configuration is refused.
          environment: versions, command and the like, stored beside the configuration.
          overwrite: whether to start again, whatever is in the folder.
          repair: whether to move damaged lines aside and resume from those before them.

        Raises:
          InputError: if the folder cannot be written, was made with another
            configuration, or holds damaged files.
        """
        self.path = Path(path)
        self._lock = lock_folder(self.path)
        if overwrite:
            self._remove_results()
        open_config(self.path, config, environment or {}, DECISIONS, repair)
        num_batches = config.get("num_validation_batches")
        self._decisions = self._read(DECISIONS, decision_problem, repair)
        validation = self._read(
            VALIDATION,
            lambda line: validation_problem(line, VALIDATION_BLOCK, num_batches),
            repair,
        )
        self._scores = {
            (line["proposal"], line["step"], edge): to_floats(scores)
            for line in self._decisions
            for edge, scores in line["scores"].items()
        }
        self._kept = {
            (line["proposal"], line["step"], line["edge"]): line["kept"]
            for line in self._decisions
        }
        self._validated = {
            (line["genotype"], line["start"]): to_floats(line["scores"])
            for line in validation
        }

    def recall(self, proposal: int, step: int, edge: str) -> list[Any] | None:
        """Return the scores of an earlier run's decision, or None."""
        return self._scores.get((proposal, step, edge))

    def keep(self, records: Sequence[DecisionRecord]) -> None:
        """Write the decisions that are not yet in the file.

        Raises:
          InputError: if a decision that is in the file does not follow from its scores.
        """
        for record in records:
            before = self._kept.get((record.proposal, record.step, record.edge))
            if before is not None and before != list(record.kept):
                raise InputError(
                    f"{self.path / DECISIONS}: at {record.edge}, proposal "
                    f"{record.proposal}, it keeps {', '.join(before)}, but its scores "
                    f"say {', '.join(record.kept)}: a line was changed or damaged. Put "
                    "the file back as it was, or start anew with --overwrite"
                )
        new = [s for s in records if not self._has(s)]
        if new:
            self._scores.update(
                ((s.proposal, s.step, edge), list(scores))
                for s in new
                for edge, scores in s.scores.items()
            )
            lines = [asdict(step) for step in new]
            for line in lines:
                line["scores"] = {e: to_json(v) for e, v in line["scores"].items()}
            append(self.path / DECISIONS, to_text(lines))
            self._decisions += lines

    def _has(self, step: DecisionRecord) -> bool:
        keys = ((step.proposal, step.step, edge) for edge in step.scores)
        return all(key in self._scores for key in keys)

    def recall_validation(self, genotype: str, start: int) -> list[Any] | None:
        """Return the validation scores of an earlier run, or None."""
        return self._validated.get((genotype, start))

    def keep_validation(self, genotype: str, start: int, scores: np.ndarray) -> None:
        """Write the scores of one genotype on consecutive minibatches."""
        line = {"genotype": genotype, "start": start, "scores": to_json(scores)}
        append(self.path / VALIDATION, to_text([line]))

    def decisions(self) -> list[dict[str, Any]]:
        """Return all lines of the decisions file, with scores as numbers."""
        result = []
        for line in self._decisions:
            scores = {e: to_floats(s) for e, s in line["scores"].items()}
            result.append({**line, "scores": scores})
        return result

    def read_json(self, name: str, repair: bool = False) -> Any:
        """Read a JSON file of the folder; return None if it does not exist.

        Args:
          name: name of the file.
          repair: whether to move a damaged file aside, as if it did not exist.

        Raises:
          InputError: if the file is damaged.
        """
        return read_json(self.path / name, repair)

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder atomically.

        Raises:
          InputError: if that fails; a previous file is then unchanged.
        """
        write_atomically(self.path / name, text)

    def _remove_results(self) -> None:
        for name in (REPORT, GENOTYPE, TIMINGS, VALIDATION, DECISIONS, CONFIG):
            (self.path / name).unlink(missing_ok=True)

    def _read(
        self, name: str, problem_of: Callable[[str], str | None], repair: bool
    ) -> list[dict[str, Any]]:
        file = self.path / name
        if not file.exists():
            return []
        good: list[dict[str, Any]] = []
        for number, line in enumerate(complete_lines(file), 1):
            problem = problem_of(line)
            if problem is None:
                good.append(parse_json(line))
            elif repair:
                shutil.copyfile(file, file.with_suffix(".damaged"))
                self.write(name, to_text(good))
                break
            else:
                raise InputError(
                    f"{file}, line {number}: {problem}; the {number - 1} lines before "
                    "it are good. Run again with --repair to go on from those (the "
                    "damaged file is kept beside it)"
                )
        return good
