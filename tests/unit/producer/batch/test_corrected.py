"""Which jobs of a batch stay when its input is corrected."""

from headgate.producer.batch.corrected import LineOnRecord, WantedLine, compare


def job(place: int, custom_id: str, digest: str | None) -> LineOnRecord:
    return LineOnRecord(f"job-{place}", place, custom_id, digest)


def test_the_same_input_keeps_every_job() -> None:
    found = compare([job(1, "a", "A"), job(2, "b", "B")],
                    [WantedLine(1, "a", "A"), WantedLine(2, "b", "B")])  # fmt: skip
    assert (found.kept, found.moved, found.aside, found.asked) == ({1, 2}, {}, [], 0)


def test_a_changed_line_is_asked_and_its_job_leaves() -> None:
    found = compare([job(1, "a", "A"), job(2, "b", "B")],
                    [WantedLine(1, "a", "A"), WantedLine(2, "b", "B2")])  # fmt: skip
    assert (found.kept, found.aside, found.asked, found.unchanged) == ({1}, ["job-2"], 1, 1)


def test_lines_with_an_id_may_move_and_change_places() -> None:
    wanted = [WantedLine(1, "b", "B"), WantedLine(2, "a", "A"), WantedLine(3, "c", "C")]
    found = compare([job(1, "a", "A"), job(2, "b", "B"), job(3, "c", "C")], wanted)
    assert found.moved == {"job-2": (1, "b"), "job-1": (2, "a")}
    assert (found.kept, found.aside, found.asked, found.unchanged) == ({3}, [], 0, 3)


def test_lines_without_an_id_are_known_by_their_request() -> None:
    on_record = [job(1, "line-1", "A"), job(2, "line-2", "B"), job(3, "line-3", "A")]
    wanted = [WantedLine(n, f"line-{n}", digest, has_own_id=False)
              for n, digest in enumerate(("NEW", "A", "B", "A"), start=1)]  # fmt: skip
    found = compare(on_record, wanted)
    assert found.asked == 1
    assert found.aside == []
    assert found.moved == {"job-1": (2, "line-2"), "job-2": (3, "line-3"), "job-3": (4, "line-4")}


def test_a_request_under_another_id_of_its_own_is_another_line() -> None:
    found = compare([job(1, "a", "A")], [WantedLine(1, "b", "A")])
    assert (found.unchanged, found.aside, found.asked) == (0, ["job-1"], 1)


def test_a_line_that_was_removed_or_is_bad_now_leaves_and_nothing_is_asked() -> None:
    found = compare([job(1, "a", "A"), job(2, "b", "B"), job(3, "c", "C")],
                    [WantedLine(1, "a", "A"), WantedLine(2, "b", None)])  # fmt: skip
    assert (found.kept, found.aside, found.asked) == ({1}, ["job-2", "job-3"], 0)


def test_a_job_without_its_prompt_is_not_paid_again_where_it_stood() -> None:
    found = compare([job(1, "a", None), job(2, "b", None)],
                    [WantedLine(1, "a", "A"), WantedLine(3, "b", "B")])  # fmt: skip
    assert (found.kept, found.aside, found.asked) == ({1}, ["job-2"], 1)
