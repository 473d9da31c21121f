from edgeclave.edge.backoff import Backoff


def test_doubles_to_the_longest_and_begins_again() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=60, jitter=False)
    assert [backoff.next_seconds() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next_seconds() == 1


def test_jitter_only_shortens() -> None:
    backoff = Backoff(first_seconds=10, longest_seconds=10)
    waits = [backoff.next_seconds() for _ in range(200)]
    assert all(8 <= wait <= 10 for wait in waits)
    assert len(set(waits)) > 1
