import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from nas.accuracy.augment import Augmentation
from nas.accuracy.training import ShortTraining, parameter_groups
from nas.data.digits import Digits
from nas.errors import CandidateError, ConfigError, ModelFileError


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 10),
    )


def train(module, dataset, seed=0, gate=None, **settings):
    recipe = ShortTraining(**{"epochs": 2, "warmup_epochs": 0.5, "threads": 1, **settings})
    return recipe.train(module, dataset, dataset.preprocessing(8, 8), seed, gate)


def test_learns_the_digits_in_two_epochs(digits):
    module = tiny()
    result = train(module, digits)
    assert result.accuracy_fp32 > 0.8
    assert (result.epochs_run, result.stopped_early, len(result.history)) == (2, False, 2)
    assert result.history[1].loss < result.history[0].loss
    assert not module.training
    assert all(parameter.grad is None for parameter in module.parameters())


def test_accuracy_is_that_of_the_weights_left_behind(digits):
    module = tiny()
    result = train(module, digits, epochs=3, learning_rate=0.3, warmup_epochs=0.0)
    validation = digits.splits["validation"]
    preprocessing = digits.preprocessing(8, 8)
    with torch.inference_mode():
        logits = module(torch.from_numpy(preprocessing.normalize(preprocessing.resize(validation.images))))
    assert np.mean(logits.argmax(dim=1).numpy() == validation.labels) == result.accuracy_fp32
    assert result.accuracy_fp32 == max(record.accuracy for record in result.history)
    assert result.history[result.best_epoch - 1].accuracy == result.accuracy_fp32


def test_same_seed_same_result_and_another_seed_another(digits):
    modules = [tiny() for _ in range(3)]
    results = [
        train(module, digits, seed=seed, augment="crop", cutout_share=0.25)
        for module, seed in zip(modules, (1, 1, 2), strict=True)
    ]
    losses = [[record.loss for record in result.history] for result in results]
    assert losses[0] == losses[1] != losses[2]
    weights = [module[0].weight for module in modules]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_torchs_random_state_and_threads_are_as_before(digits):
    module, state, threads = tiny(), torch.get_rng_state(), torch.get_num_threads()
    train(module, digits, epochs=1, warmup_epochs=0)
    assert torch.equal(torch.get_rng_state(), torch.Generator().set_state(state).get_state())
    assert torch.get_num_threads() == threads


def test_training_sees_exactly_what_preprocessing_makes(digits):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny()

        def forward(self, batch):
            seen.append((self.training, batch.detach().numpy().copy()))
            return self.inner(batch)

    train(Spy(), digits, epochs=1, warmup_epochs=0)
    preprocessing = digits.preprocessing(8, 8)
    pictures = {
        split: {picture.tobytes() for picture in preprocessing.normalize(preprocessing.resize(part.images))}
        for split, part in digits.splits.items()
    }
    for training, batch in seen:
        expected = pictures["train" if training else "validation"]
        assert all(np.ascontiguousarray(picture).tobytes() in expected for picture in batch)


class Broken(nn.Module):
    def __init__(self, spoil):
        super().__init__()
        self.inner = tiny()
        self.spoil = spoil

    def forward(self, batch):
        return self.spoil(self.inner(batch), self.training)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda logits, training: logits * float("nan"), "nan"),
        (lambda logits, training: logits * float("inf"), "nan"),
        (lambda logits, training: logits if training else logits * float("nan"), "nan"),
        # sqrt'(0) is infinite: the loss is finite, its gradient is not.
        (lambda logits, training: logits + (logits * 0.0).sqrt(), "nan"),
        (lambda logits, training: logits[:, :9], "error"),
    ],
    ids=["nan", "inf", "only in validation", "gradient", "shape"],
)
def test_a_broken_candidate_is_refused_with_its_kind(digits, spoil, kind):
    module = Broken(spoil)
    with pytest.raises(CandidateError) as caught:
        train(module, digits)
    assert caught.value.kind == kind
    assert not module.training


def test_a_network_without_weights_is_refused(digits):
    with pytest.raises(CandidateError, match="degenerate"):
        train(nn.Flatten(), digits)


def test_patience_ends_a_training_that_does_not_improve(digits):
    result = train(Broken(lambda logits, training: logits if training else logits * 0.0), digits, epochs=9, patience=2)
    assert (result.epochs_run, result.stopped_early, result.stop_reason, result.best_epoch) == (3, True, "patience", 1)


def test_the_deadline_ends_a_training_and_says_so(digits):
    result = train(tiny(), digits, epochs=500, max_seconds=1e-6)
    assert (result.epochs_run, result.stopped_early, result.stop_reason) == (1, True, "deadline")


def test_a_deadline_shortens_the_schedule_so_that_it_still_ends_near_zero(digits):
    result = train(tiny(), digits, epochs=100_000, patience=None, max_seconds=1.0)
    assert result.stopped_early
    assert result.stop_reason == "deadline"
    assert result.history[-1].learning_rate < 0.5 * ShortTraining().learning_rate


def test_the_gate_is_held_in_every_step_and_never_twice(digits):
    class Gate:
        def __init__(self):
            self.lock, self.turns = threading.Lock(), 0

        @contextmanager
        def training(self):
            assert self.lock.acquire(blocking=False)
            self.turns += 1
            try:
                yield
            finally:
                self.lock.release()

    gate = Gate()
    held = []
    module = Broken(lambda logits, training: held.append(gate.lock.locked()) or logits)
    train(module, digits, epochs=1, warmup_epochs=0, gate=gate)
    assert len(held) == gate.turns > 30
    assert all(held)


def test_fewer_pictures_than_a_batch_are_one_batch(digits):
    assert train(tiny(), digits, batch_size=5000).epochs_run == 2


def test_bfloat16_learns_too(digits):
    assert train(tiny(), digits, bf16=True).accuracy_fp32 > 0.7


def test_norms_and_biases_are_not_decayed():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    decayed, spared = parameter_groups(module, 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 1, 3, 3), (2, 2)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(spared["params"]) == 4


def test_the_rate_warms_up_and_ends_at_zero():
    recipe = ShortTraining(epochs=10, warmup_epochs=2, learning_rate=1.0)
    assert [round(recipe.rate(position, 10), 6) for position in (0, 1, 2, 6, 10)] == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_the_key_is_that_of_the_recipe():
    assert ShortTraining().key == ShortTraining(threads=7).key
    assert len({ShortTraining().key, ShortTraining(epochs=13).key, ShortTraining(bf16=True).key}) == 3


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"augment": "flip"}, {"patience": 0}, {"max_seconds": -1.0}, {"warmup_epochs": 12}, {"threads": 0}],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=f"accuracy.{next(iter(settings))}"):
        ShortTraining(**settings)


IMAGES = np.arange(2 * 8 * 8 * 3, dtype=np.uint16).reshape(2, 8, 8, 3).astype(np.uint8)
GREY = np.zeros(3, np.uint8)


def test_no_augmentation_changes_nothing():
    batch = Augmentation().draw(IMAGES, np.array([1, 0, 1]), GREY, np.random.default_rng(0))
    assert np.array_equal(batch, IMAGES[[1, 0, 1]])


def test_a_crop_is_a_shift_with_reflected_border():
    rng = np.random.default_rng(0)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[0, y : y + 8, x : x + 8].tobytes() for y in range(5) for x in range(5)}
    drawn = Augmentation(crop=0.25).draw(IMAGES, np.zeros(200, np.int64), GREY, rng)
    assert {picture.tobytes() for picture in drawn} == windows


def test_a_flip_mirrors_about_half_of_the_pictures():
    drawn = Augmentation(flip=True).draw(IMAGES, np.zeros(200, np.int64), GREY, np.random.default_rng(0))
    mirrored = [np.array_equal(picture, IMAGES[0, :, ::-1]) for picture in drawn]
    assert all(mirror or np.array_equal(picture, IMAGES[0]) for mirror, picture in zip(mirrored, drawn, strict=True))
    assert 60 < sum(mirrored) < 140


def test_a_cutout_paints_a_square_and_spares_the_source():
    kept, fill = IMAGES.copy(), np.array([250, 251, 252], np.uint8)
    drawn = Augmentation(cutout=0.5).draw(IMAGES, np.zeros(100, np.int64), fill, np.random.default_rng(0))
    painted = (drawn == fill).all(axis=-1).sum(axis=(1, 2))
    assert painted.min() >= 4
    assert painted.max() <= 16
    assert np.array_equal(IMAGES, kept)


def test_a_training_that_stopped_goes_on_to_the_same_weights(digits, tmp_path):
    settings = {"epochs": 4, "warmup_epochs": 0.5, "augment": "crop", "learning_rate": 0.01}
    recipe = ShortTraining(**settings, threads=1)
    whole, parts = tiny(), tiny()
    straight = recipe.train(whole, digits, digits.preprocessing(8, 8), 3)
    file = tmp_path / "checkpoint.safetensors"
    for until in (1, 3, 4):
        fresh = tiny(seed=until)
        fresh.load_state_dict(parts.state_dict()) if until == 1 else None
        result = recipe.train(fresh, digits, digits.preprocessing(8, 8), 3, until=until, checkpoint=file)
        assert result.epochs_run == until
    assert [record.loss for record in result.history] == [record.loss for record in straight.history]
    assert result.accuracy_fp32 == straight.accuracy_fp32
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])


def test_the_best_epoch_survives_a_stop(digits, tmp_path):
    recipe = ShortTraining(epochs=4, warmup_epochs=0.0, learning_rate=0.5, patience=None, threads=1)
    file = tmp_path / "checkpoint.safetensors"
    whole = tiny()
    straight = recipe.train(whole, digits, digits.preprocessing(8, 8), 0)
    for until in (2, 4):
        module = tiny()
        result = recipe.train(module, digits, digits.preprocessing(8, 8), 0, until=until, checkpoint=file)
    assert (result.best_epoch, result.accuracy_fp32) == (straight.best_epoch, straight.accuracy_fp32)
    assert torch.equal(module[0].weight, whole[0].weight)


def test_a_checkpoint_of_another_recipe_network_or_a_damaged_one_is_refused(digits, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    preprocessing = digits.preprocessing(8, 8)
    recipe = ShortTraining(epochs=2, warmup_epochs=0.5, threads=1)
    recipe.train(tiny(), digits, preprocessing, 0, until=1, checkpoint=file)
    other = ShortTraining(epochs=2, warmup_epochs=0.5, learning_rate=0.1, threads=1)
    with pytest.raises(ModelFileError, match="was written by recipe"):
        other.train(tiny(), digits, preprocessing, 0, until=2, checkpoint=file)
    larger = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ModelFileError, match="another architecture"):
        recipe.train(larger, digits, preprocessing, 0, until=2, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="cannot be read"):
        recipe.train(tiny(), digits, preprocessing, 0, until=2, checkpoint=file)
    with pytest.raises(ConfigError, match="expected 1 to 2"):
        recipe.train(tiny(), digits, preprocessing, 0, until=3)
