from icon_classifier import forkserver


def test_filling_the_holes_takes_the_free_blocks() -> None:
    def free() -> int:
        return sum(size * count for size, count in forkserver._free_blocks())

    before = free()
    assert before > 0
    ballast = forkserver.fill_holes()
    # What the filling itself allocates and frees is left.
    assert sum(map(len, ballast)) > 0
    assert free() < before


def test_the_report_of_the_allocator_names_every_size() -> None:
    sizes = [size for size, _ in forkserver._free_blocks()]
    assert sizes == sorted(set(sizes))
    assert all(size % 16 == 0 and size <= 512 for size in sizes)
