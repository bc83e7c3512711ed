"""What a step sees: every example once per epoch, and a function of seed and step alone."""

import pickle

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.data import batches as module
from wakd_kit.data.batches import SourceBatches, room, seed_step, streams, uploaded
from wakd_kit.data.domains import Rows


@pytest.fixture(scope="module")
def split():
    """Sources with 16, 24 and 32 training images; the first pixel of an image is its serial number."""
    first, arrays = 0, {}
    for name, n in (("a", 20), ("b", 30), ("c", 40), ("target", 10)):
        images = np.zeros((n, 8, 8, 3), np.uint8)
        images[:, 0, 0, 0] = first + np.arange(n)
        arrays[name], first = (images, np.arange(n) % 2), first + n
    return wk.leave_one_out(wk.domains_from_arrays(arrays, ("even", "odd")), "target")


def batches(split, sampling, size=8, seed=0):
    return SourceBatches(split, size, sampling, seed, torch.device("cpu"))


def batch_of(data, step):
    """Images and labels of a step."""
    index = data.index(step)
    return data.images[index], data.labels[index]


def serials(images):
    return images[:, 0, 0, 0].tolist()


def epochs(sequence, length):
    return [sorted(sequence[i : i + length]) for i in range(0, len(sequence) - length + 1, length)]


def test_pooled_sampling_shows_every_example_once_per_epoch(split):
    data = batches(split, "pooled", size=7)  # does not divide the 72 images: epochs end inside batches
    seen = [s for step in range(1, 43) for s in serials(batch_of(data, step)[0])]
    everything = sorted(s for e in split.train.values() for s in serials(e.images))
    assert len(everything) == 72 and epochs(seen, 72) == [everything] * 4
    assert seen[:72] != seen[72:144], "each epoch has an order of its own"


def test_balanced_sampling_shows_each_domain_in_equal_shares(split):
    data = batches(split, "balanced")
    seen = {name: [] for name in split.sources}
    for step in range(1, 61):
        images, _ = batch_of(data, step)
        of = {s: name for name, e in split.train.items() for s in serials(e.images)}
        shares = {name: [s for s in serials(images) if of[s] == name] for name in seen}
        assert [len(part) for part in shares.values()] == [[3, 3, 2], [3, 2, 3], [2, 3, 3]][(step - 1) % 3]
        for name, part in shares.items():
            seen[name] += part
    for name, sequence in seen.items():
        own = sorted(serials(split.train[name].images))
        assert len(epochs(sequence, len(own))) >= 3 and all(epoch == own for epoch in epochs(sequence, len(own)))


@pytest.mark.parametrize("sampling", ["pooled", "balanced", "classes", "turns"])
def test_labels_stay_with_their_images(split, sampling):
    label_of = {s: y for e in split.train.values() for s, y in zip(serials(e.images), e.labels)}
    images, labels = batch_of(batches(split, sampling), 11)
    assert [label_of[s] for s in serials(images)] == labels.tolist()


@pytest.mark.parametrize("sampling", ["pooled", "balanced", "classes", "turns"])
def test_a_batch_is_a_function_of_seed_and_step(split, sampling):
    used = batches(split, sampling)
    for step in range(1, 40):
        batch_of(used, step)
    fresh = batch_of(batches(split, sampling), 23)[0]
    assert serials(batch_of(used, 23)[0]) == serials(fresh), "history and order of calls play no part"
    assert serials(fresh) != serials(batch_of(batches(split, sampling), 24)[0])
    assert serials(fresh) != serials(batch_of(batches(split, sampling, seed=1), 23)[0])


def test_balanced_batches_smaller_than_the_number_of_domains_are_refused(split):
    with pytest.raises(ValueError, match="batch_size 2 is less than the 3 source domains"):
        batches(split, "balanced", size=2)


def test_random_draws_of_a_step_are_a_function_of_seed_and_step():
    generator = torch.Generator()

    def draws(seed, step):
        torch.rand(step)  # whatever was drawn before
        seed_step(generator, seed, step)
        return torch.rand(3, generator=generator).tolist(), torch.rand(3).tolist()

    with torch.random.fork_rng():
        one, other_step, other_seed, again = draws(0, 5), draws(0, 6), draws(1, 5), draws(0, 5)
    assert one == again
    assert one[0] != other_step[0] and one[1] != other_step[1]
    assert one[0] != other_seed[0] and one[1] != other_seed[1]
    assert one[0] != one[1], "views and dropout do not share their draws"


def test_a_step_draws_what_it_drew_when_every_backend_was_asked():
    with torch.random.fork_rng():
        words = np.random.SeedSequence([3, 7]).generate_state(2, np.uint64)
        torch.manual_seed(int(words[1] >> 1))
        expected = torch.randn(40)
        seed_step(torch.Generator(), 3, 7)
        assert torch.equal(torch.randn(40), expected)


@pytest.fixture(scope="module")
def classes():
    """Sources of 3 domains and 5 classes, 12 training images of each in each."""
    arrays = {}
    for number, name in enumerate("abct"):
        labels = np.repeat(np.arange(5), 15)
        images = np.full((len(labels), 8, 8, 3), number, np.uint8)
        images[:, 0, 0, 0] = np.arange(len(labels))
        arrays[name] = (images, labels)
    return wk.leave_one_out(wk.domains_from_arrays(arrays, tuple("vwxyz")), "t")


def test_sampling_by_classes_spreads_each_class_over_its_domains(classes):
    data, shown = batches(classes, "classes", size=32), []
    for step in range(1, 41):
        images, labels = batch_of(data, step)
        here, counts = labels.unique(return_counts=True)
        assert counts.tolist() in ([16, 16], [32])  # one class twice, where an epoch of classes ends
        for label in here.tolist():
            of = images[labels == label][:, 1, 1, 0].bincount(minlength=3).tolist()
            times = len(images[labels == label]) // 16
            assert sorted(of) == [5 * times, 5 * times, 6 * times] or (times == 2 and sorted(of) == [10, 11, 11])
            shown += [label] * times
        often = np.bincount(shown, minlength=5)
        assert often.max() - often.min() <= 1, "every class comes once before any comes twice"


def test_sampling_by_classes_shows_every_image_of_a_class_in_a_domain_once_per_epoch(classes):
    data, seen = batches(classes, "classes", size=32), []
    for step in range(1, 41):
        images, labels = batch_of(data, step)
        seen += serials(images[(labels == 1) & (images[:, 1, 1, 0] == 0)])
    own = sorted(serials(classes.train["a"].images[classes.train["a"].labels == 1]))
    assert len(epochs(seen, 12)) >= 7 and all(epoch == own for epoch in epochs(seen, 12))


@pytest.mark.parametrize("sampling", ["balanced", "classes"])
@pytest.mark.parametrize("size", [8, 32, 64, 70])
def test_what_does_not_divide_goes_to_each_domain_and_class_in_turn(classes, sampling, size):
    """At every step of a run each domain has a third of the images, and no image is passed over."""
    data, domains, of_class, seen = batches(classes, sampling, size=size), np.zeros(3, int), np.zeros(5, int), []
    for step in range(1, 121):
        images, labels = batch_of(data, step)
        assert len(images) == size
        domains += np.bincount(images[:, 1, 1, 0], minlength=3)
        of_class += np.bincount(labels, minlength=5)
        seen += list(zip(images[:, 1, 1, 0].tolist(), serials(images)))
        # by classes, the deal of each is another: to within one image of each class
        assert np.ptp(domains) <= (1 if sampling == "balanced" else 5), step
        assert sampling == "balanced" or np.ptp(of_class) <= -(-size // data.at_once) + 120
    often = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(often) == 180, "each image is shown"
    if sampling == "balanced":
        assert np.ptp(often) <= 1


@pytest.mark.parametrize("size", [32, 48, 64, 70])
def test_a_batch_by_classes_never_has_a_class_twice(classes, size):
    data = batches(classes, "classes", size=size)
    counts = [np.bincount(batch_of(data, step)[1], minlength=5) for step in range(1, 121)]
    assert {np.count_nonzero(one) for one in counts} == {data.at_once} == {size // 16}
    assert all(np.ptp(one[one > 0]) <= 1 for one in counts)


@pytest.mark.parametrize("sampling", ["pooled", "balanced", "classes", "turns"])
def test_where_a_run_goes_on_it_sees_what_it_would_have_seen(classes, sampling):
    through = batches(classes, sampling, size=70)
    whole = [through.index(step).tolist() for step in range(1, 31)]
    assert [batches(classes, sampling, size=70).index(step).tolist() for step in range(1, 31)] == whole
    assert [through.index(step).tolist() for step in (30, 3, 17)] == [whole[i] for i in (29, 2, 16)]


def test_pooled_batches_are_what_they_always_were(split):
    """Recordings made before the others were mended go on as they began."""
    n = sum(len(e) for e in split.train.values())
    order = np.concatenate([np.random.default_rng([3, 0, epoch]).permutation(n) for epoch in range(3)])
    data = batches(split, "pooled", size=7, seed=3)
    assert [i for step in range(1, 21) for i in data.index(step).tolist()] == order[:140].tolist()


def test_images_on_disk_stay_there(tmp_path):
    """Neither a split nor its batches copy a memory map, and what they read of it is what is there."""
    sides, labels = 24, np.arange(60) % 2
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(180, sides, sides, 3))
    mapped[:] = np.random.default_rng(0).integers(0, 256, mapped.shape, np.uint8)
    arrays = {name: (mapped[60 * i : 60 * (i + 1)], labels) for i, name in enumerate("abc")}
    split = wk.leave_one_out(wk.domains_from_arrays(arrays, ("x", "y")), "c")
    data = batches(split, "balanced", size=9)
    for part in (*(e.images for e in (*split.train.values(), *split.val.values())), *data.images.parts):
        assert np.shares_memory(part.array, mapped)
    whole = np.concatenate([np.asarray(e.images) for e in split.train.values()])
    for step in (1, 2, 30):
        images, _ = batch_of(data, step)
        np.testing.assert_array_equal(images, whole[data.index(step)])


def test_rows_are_read_like_the_array_they_stand_for():
    array = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    index = np.array([7, 3, 3, 19, 0])
    rows, plain = Rows(array, index), array[index]
    assert len(rows) == 5 and rows.shape == plain.shape and rows.dtype == np.uint8 and rows.ndim == 4
    keys = (2, -1, slice(1, 4), slice(None, None, -1), [0, 4], np.array([1, 0, 0, 0, 1], bool), (2, 1), (..., 0))
    for key in (*keys, (slice(None), 0, 0, 0), (slice(1, 3), slice(2), 1), ([0, 2], 1), ([0, 1], [1, 0]), (0, [1, 0])):
        np.testing.assert_array_equal(rows[key], plain[key])
    np.testing.assert_array_equal(Rows(rows, [1, 4]), plain[[1, 4]])
    np.testing.assert_array_equal(np.concatenate([rows, rows]), np.concatenate([plain, plain]))
    np.testing.assert_array_equal(rows / 255, plain / 255)
    assert rows.mean() == plain.mean() and rows.tobytes() == plain.tobytes() and (rows == plain).all()
    assert (pickle.loads(pickle.dumps(rows)) == plain).all()


@pytest.mark.parametrize(("size", "counts"), [(64, [16] * 4), (9, [5, 4]), (70, [18, 18, 17, 17]), (200, [40] * 5)])
def test_sampling_by_classes_fills_the_batch(classes, size, counts):
    images, labels = batch_of(batches(classes, "classes", size=size), 1)
    assert len(images) == size and sorted(labels.unique(return_counts=True)[1].tolist(), reverse=True) == counts


# ---- images that do not fit


@pytest.mark.parametrize("sampling", ["pooled", "balanced", "classes", "turns"])
def test_streamed_batches_are_those_of_images_that_lie_still(split, sampling):
    still = batches(split, sampling)
    streamed = SourceBatches(split, 8, sampling, 0, torch.device("cpu"), streaming="always")
    for step in (*range(1, 25), 3, 4, 90):  # on, back where a run is resumed, and beyond
        *ours, of_ours = streamed.batch(step)
        *theirs, of_theirs = still.batch(step)
        assert of_ours.keys() == of_theirs.keys() == {"index", "domains"}
        assert all(map(torch.equal, (*ours, *of_ours.values()), (*theirs, *of_theirs.values())))
        assert len(streamed._ahead.begun) == 2


def test_images_are_streamed_where_they_exceed_a_share_of_memory(split, monkeypatch):
    images, device = [e.images for e in split.train.values()], torch.device("cpu")
    taken = 72 * 8 * 8 * 3
    assert room(device) > 2**28
    for memory, streamed in ((2 * taken, False), (2 * taken - 1, True)):
        monkeypatch.setattr("wakd_kit.data.batches.room", lambda _, memory=memory: memory)
        assert streams(images, device) is streamed and SourceBatches(split, 8, "pooled", 0, device).streamed is streamed
        assert streams(images, device, "always") and not streams(images, device, "never")


def test_a_batch_that_cannot_be_read_says_so_at_its_step(split, monkeypatch):
    data = SourceBatches(split, 8, "pooled", 0, torch.device("cpu"), streaming="always")
    gathered = data.images.gathered

    def breaks(index):
        if 5 in index:
            raise OSError("the disk is gone")
        return gathered(index)

    monkeypatch.setattr(data.images, "gathered", breaks)
    (step,) = [step for step in range(1, 10) if 5 in data.index(step)]
    for before in range(1, step):
        data.batch(before)
    with pytest.raises(OSError, match="the disk is gone"):
        data.batch(step)


def test_batches_of_a_domain_are_uploaded_one_by_one(split):
    images = split.train["a"].images
    for source in (images, np.asarray(images), torch.as_tensor(np.asarray(images))):
        parts = list(uploaded(source, torch.device("cpu"), 5))
        assert [len(part) for part in parts] == [5, 5, 5, 1]
        assert torch.equal(torch.cat(parts), torch.as_tensor(np.asarray(images)))
    other = list(uploaded(images, torch.device("meta"), 5))  # ahead, by a thread
    assert [tuple(part.shape) for part in other] == [(5, 8, 8, 3)] * 3 + [(1, 8, 8, 3)]


def test_in_turns_every_batch_is_of_one_domain_in_epochs_of_its_own(split):
    data = batches(split, "turns", size=12)  # divides none of the 16, 24 and 32 images but one
    of = {s: place for place, e in enumerate(split.train.values()) for s in serials(e.images)}
    seen = [serials(batch_of(data, step)[0]) for step in range(1, 25)]
    assert [{of[s] for s in batch} for batch in seen] == [{step % 3} for step in range(24)]
    for place, examples in enumerate(split.train.values()):
        shown = [s for batch in seen[place::3] for s in batch]
        assert epochs(shown, len(examples)) == [sorted(serials(examples.images))] * (96 // len(examples))


def test_trainings_that_share_a_device_share_its_memory(monkeypatch):
    images, cuda = [np.zeros((100, 2, 2, 3), np.uint8)], torch.device("cuda")
    monkeypatch.setattr(module, "room", lambda device: 4 * 1200)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for places, streamed in (("1", False), ("0,1,0", False), ("1,0,1", False), ("1,1,1", True)):
        monkeypatch.setenv("WAKD_GPUS", places)
        assert streams(images, cuda) == streamed, places
