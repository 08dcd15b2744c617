"""What a process keeps of its groups."""

import weakref

from ladd_dist.parallel.ranks import join


def test_no_thread_of_a_group_outlives_the_block_though_the_ranks_do() -> None:
    """A thread of gloo that frees the last call's tensors while the interpreter shuts down would abort the process."""
    with join("gloo", 60.0, needs_group=True) as ranks:
        groups = [weakref.ref(group) for group in (ranks.groups.control, ranks.groups.background, ranks.groups.untimed)]
        assert all(group() is not None for group in groups)
    assert ranks.size == 1
    assert [group() for group in groups] == [None, None, None]
