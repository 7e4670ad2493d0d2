"""Contrastive, distillation and masked objectives: they learn, their numbers are right, their encoder moves on."""

from __future__ import annotations

import json
import math

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional

from monai_landmark.data.synthetic import synthesize_film
from monai_landmark.errors import ConfigurationError, WeightsError
from monai_landmark.networks import landmark_network
from monai_landmark.pretraining.dino import DINOObjective
from monai_landmark.pretraining.encoder_objective import in_full_precision, momentum_at
from monai_landmark.pretraining.masked import MaskedObjective, masked_error
from monai_landmark.pretraining.mocov3 import MoCoV3Objective
from monai_landmark.pretraining.simclr import SimCLRObjective

TINY = "test_efficientnet"
OBJECTIVES = [SimCLRObjective, MoCoV3Objective, DINOObjective, MaskedObjective]
TAUGHT = [MoCoV3Objective, DINOObjective]


def build(objective, **options):
    torch.manual_seed(0)
    small = {"patch_size": 16} if objective is MaskedObjective else {"projection": 32, "hidden": 64}
    return objective(TINY, **{**small, **options})


@pytest.fixture(scope="module")
def films():
    """Four synthetic films on a grid of 64 x 64, in [-1, 1]."""
    pixels = [torch.from_numpy(synthesize_film(seed, (256, 256)).pixels.astype("float32")) for seed in range(4)]
    films = functional.interpolate(torch.stack(pixels)[:, None], (64, 64), mode="area")
    low, high = films.amin(dim=(1, 2, 3), keepdim=True), films.amax(dim=(1, 2, 3), keepdim=True)
    return 2 * (films - low) / (high - low) - 1


def augmented(films):
    """A view of every film: shifted a little, with its contrast changed and noise."""
    rows, columns = torch.randint(-3, 4, (2,)).tolist()
    gain = 1 + 0.2 * torch.randn(len(films), 1, 1, 1)
    return films.roll((rows, columns), dims=(2, 3)) * gain + 0.05 * torch.randn_like(films)


def batch_for(objective, films):
    return torch.cat([augmented(films) for _ in range(objective.views)], dim=1)


class TestLearning:
    @pytest.mark.parametrize(
        ("objective", "options", "steps", "rate", "fraction"),
        [
            (SimCLRObjective, {}, 25, 2e-3, 0.1),  # from about log 7
            (MoCoV3Objective, {"momentum": 0.9}, 30, 2e-3, 0.1),  # from about 4 tau log 4
            (DINOObjective, {"momentum": 0.9, "projection": 256}, 40, 4e-3, 0.1),  # from about log 256
            (MaskedObjective, {}, 60, 4e-3, 0.6),  # in gray values; other patches are hidden every time
        ],
    )
    def test_overfits_four_films(self, films, objective, options, steps, rate, fraction):
        trained = build(objective, **options)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=rate)
        batch, losses = batch_for(trained, films), []
        for step in range(steps):
            trained.progress = step / steps
            output = trained(batch)
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
            trained.step_completed()
            losses.append(output["loss"].item())
        assert sum(losses[-5:]) < fraction * sum(losses[:5])
        if objective in (SimCLRObjective, MoCoV3Objective):  # 4 films can fill 3 dimensions at most
            assert 0.5 < output["projection_spread"] * math.sqrt(32) <= 1.1
        elif objective is DINOObjective:  # the answers tell which of the 4 films it is
            assert output["mean_entropy"] - output["teacher_entropy"] > 0.9 * math.log(4)
        else:
            assert output["relative_error"] < 0.7

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_gradient_reaches_all_that_is_trained_and_no_teacher(self, films, objective):
        trained = build(objective)
        trained(batch_for(trained, films))["loss"].backward()
        students = {name for name, p in trained.named_parameters() if p.requires_grad}
        reached = {name for name, p in trained.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
        assert students == reached  # else a distributed run would wait for ever
        assert any(trained.get_parameter(name).grad.abs().sum() > 0 for name in students if name.startswith("network."))
        fixed = {name for name, _ in trained.named_parameters()} - students
        assert all("teacher" in name or name.endswith("last_layer.weight_g") for name in fixed)

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_only_scalars_and_one_gradient(self, films, objective):
        trained = build(objective)
        output = trained(batch_for(trained, films))
        assert all(value.ndim == 0 and value.isfinite() for value in output.values())
        assert [name for name, value in output.items() if value.requires_grad] == ["loss"]

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_validation_changes_nothing(self, films, objective):
        trained = build(objective).eval()
        before = {name: value.clone() for name, value in trained.state_dict().items()}
        with torch.no_grad():
            trained(batch_for(trained, films))
        assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())

    @pytest.mark.parametrize("objective", [SimCLRObjective, MoCoV3Objective, DINOObjective])
    def test_bfloat16(self, films, objective):
        trained, batch = build(objective).eval(), torch.cat([films, films.roll(2, dims=3)], dim=1)
        exact = trained(batch)["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = trained(batch)["loss"]
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)

    @pytest.mark.parametrize("objective", [SimCLRObjective, MoCoV3Objective, DINOObjective])
    def test_two_films_with_batch_norm_in_the_heads(self, films, objective):
        trained = build(objective, batch_norm=True)
        trained(batch_for(trained, films[:2]))["loss"].backward()
        assert all(p.grad.isfinite().all() for p in trained.parameters() if p.requires_grad)


class TestTransfer:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_the_saved_encoder_fills_a_landmark_network(self, tmp_path, objective):
        trained = build(objective)
        with torch.no_grad():
            for value in trained.network.state_dict().values():
                value.add_(1)  # unlike any fresh start
        save_file(trained.network.state_dict(), tmp_path / "model.safetensors")
        landmarks = landmark_network(3, TINY, tmp_path / "model.safetensors", decoder_channels=(16, 16, 16, 8, 8))
        report, expected = landmarks.transfer_report, trained.network.state_dict()
        assert set(report.loaded) == set(expected) and report.reinitialized == () and report.ignored == ()
        for name, value in landmarks.encoder.state_dict().items():
            assert torch.equal(value, expected[name]), name

    def test_starts_from_a_file(self, tmp_path):
        source = timm.create_model(TINY, in_chans=1)
        torch.save(source.state_dict(), tmp_path / "encoder.pt")
        trained = build(MoCoV3Objective, initialization=tmp_path / "encoder.pt")
        assert trained.transfer_report.reinitialized == ()
        assert torch.equal(trained.network.conv_stem.weight, source.conv_stem.weight)
        assert torch.equal(trained.teacher.conv_stem.weight, source.conv_stem.weight)
        assert trained.describe()["initialization"] == "encoder.pt"

    @pytest.mark.parametrize(("initialization", "expected"), [("imagenet", True), ("random", False)])
    def test_imagenet_weights_are_timms(self, monkeypatch, initialization, expected):
        create, asked = timm.create_model, []
        monkeypatch.setattr(timm, "create_model", lambda *a, **k: asked.append(k.pop("pretrained")) or create(*a, **k))
        build(SimCLRObjective, initialization=initialization)
        assert asked == [expected]

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_the_card_is_json_and_builds_the_objective_again(self, objective):
        card = json.loads(json.dumps(build(objective).describe()))
        name, architecture = card.pop("objective"), card.pop("architecture")
        assert objective.__name__.lower() == f"{name}objective" and architecture == TINY
        again = objective(architecture, **card)
        assert again.describe() == build(objective).describe()
        again.load_state_dict(build(objective).state_dict())

    def test_what_does_not_fit_is_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="unknown encoder"):
            SimCLRObjective("no_such_encoder")
        with pytest.raises(WeightsError, match="no such weights file"):
            build(SimCLRObjective, initialization=tmp_path / "absent.pt")


class TestContrast:
    def test_simclr_is_nt_xent(self, films):
        """Against the sum of the paper, term by term, in float64."""
        trained = build(SimCLRObjective, temperature=0.3).double().eval()
        batch = batch_for(trained, films).double()
        views = [film[None, None] for film in (*batch[:, 0], *batch[:, 1])]
        z = [trained.projector(trained.network(view)[-1].mean(dim=(2, 3)))[0] for view in views]
        z = [vector / vector.square().sum().sqrt() for vector in z]
        terms = []
        for i in range(8):
            weight = [math.exp((z[i] @ z[k]).item() / 0.3) for k in range(8)]
            terms.append(-math.log(weight[(i + 4) % 8] / sum(w for k, w in enumerate(weight) if k != i)))
        assert trained(batch)["loss"].item() == pytest.approx(sum(terms) / 8, rel=1e-9)

    def test_mocov3_is_symmetric_infonce(self, films):
        """Against algorithm 1 of the paper, term by term, in float64, with a teacher unlike the student."""
        trained = build(MoCoV3Objective, temperature=0.3).double().eval()
        with torch.no_grad():
            for p in trained.teacher_projector.parameters():
                p.mul_(1 + 0.3 * torch.randn_like(p))
        batch = batch_for(trained, films).double()
        unit = functional.normalize
        query, key = [], []
        for view in (batch[:, :1], batch[:, 1:]):
            pooled = trained.network(view)[-1].mean(dim=(2, 3))
            query.append(unit(trained.predictor(trained.projector(pooled))))
            key.append(unit(trained.teacher_projector(pooled)))
        expected = 0.0
        for q, k in ((query[0], key[1]), (query[1], key[0])):
            for i in range(4):
                weight = [math.exp((q[i] @ k[j]).item() / 0.3) for j in range(4)]
                expected -= 2 * 0.3 * math.log(weight[i] / sum(weight)) / 4
        assert trained(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("objective", [SimCLRObjective, MoCoV3Objective])
    def test_collapsed_projections_are_seen(self, films, objective):
        trained = build(objective)
        last = trained.projector.layers[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.ones_(last.bias)
        assert trained(batch_for(trained, films))["projection_spread"] < 1e-6

    @pytest.mark.parametrize("objective", [SimCLRObjective, MoCoV3Objective])
    def test_one_film_has_no_negatives(self, films, objective):
        trained = build(objective)
        with pytest.raises(ConfigurationError, match="no negatives"):
            trained(batch_for(trained, films[:1]))

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_a_wrong_number_of_views_is_refused(self, films, objective):
        with pytest.raises(ConfigurationError, match="RandViewsd"):
            build(objective)(films.repeat(1, 3, 1, 1))

    def test_a_loss_keeps_its_digits(self):
        def spy(*tensors):
            return [tensor.dtype for tensor in tensors] + [torch.is_autocast_enabled("cpu")]

        with torch.autocast("cpu", torch.bfloat16):
            seen = in_full_precision(spy, torch.ones(2).bfloat16(), torch.ones(2), torch.ones(2).double())
        assert seen == [torch.float32, torch.float32, torch.float64, False]


class TestTeacher:
    @pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1 / 3, 0.925), (1.0, 1.0)])
    def test_momentum_along_half_a_cosine(self, progress, momentum):
        assert momentum_at(progress, 0.9) == pytest.approx(momentum, abs=1e-12)

    @pytest.mark.parametrize("objective", TAUGHT)
    def test_the_teacher_starts_as_the_student(self, objective):
        trained = build(objective)
        for student, teacher in ((trained.network, trained.teacher), (trained.projector, trained.teacher_projector)):
            for name, value in student.state_dict().items():
                assert torch.equal(teacher.state_dict()[name], value), name

    @pytest.mark.parametrize("objective", TAUGHT)
    def test_the_teacher_follows_by_the_momentum(self, objective):
        trained = build(objective, momentum=0.8)
        trained.progress = 0.5  # momentum 0.9
        pairs = [(trained.network.conv_stem.weight, trained.teacher.conv_stem.weight)]
        pairs += [(trained.projector.layers[-1].weight, trained.teacher_projector.layers[-1].weight)]
        before = [teacher.clone() for _, teacher in pairs]
        with torch.no_grad():
            for student, _ in pairs:
                student.add_(1.0)
        for times in (1, 2):
            trained.step_completed()
            for (_, teacher), start in zip(pairs, before, strict=True):
                torch.testing.assert_close(teacher, start + 1 - 0.9**times, rtol=0, atol=1e-6)

    def test_dino_by_hand(self, films):
        """Cross-entropy of centered, sharpened answers, and the center that follows, in float64."""
        trained = build(DINOObjective, teacher_temperature=0.05, student_temperature=0.2).double().eval()
        torch.nn.init.normal_(trained.distill.center)
        batch = batch_for(trained, films).double()
        outputs = [
            trained.projector(trained.network(view)[-1].mean(dim=(2, 3))) for view in (batch[:, :1], batch[:, 1:])
        ]  # the teacher is still the student
        answers = [((out - trained.distill.center[0]) / 0.05).softmax(dim=1) for out in outputs]
        expected = 0.0
        for first, second in ((0, 1), (1, 0)):
            expected -= (answers[first] * (outputs[second] / 0.2).log_softmax(dim=1)).sum(dim=1).mean() / 2
        output = trained(batch)
        torch.testing.assert_close(output["loss"], expected, rtol=1e-9, atol=0)
        entropy = -(torch.cat(answers) * torch.cat(answers).log()).sum(dim=1).mean()
        torch.testing.assert_close(output["teacher_entropy"].double(), entropy, rtol=1e-4, atol=1e-6)
        followed = 0.9 * trained.distill.center[0, 0] + 0.1 * torch.cat(outputs).mean(dim=0)
        trained.train()
        trained._distilled(torch.cat(outputs).detach(), torch.cat(outputs))
        torch.testing.assert_close(trained.distill.center[0, 0], followed.detach(), rtol=1e-9, atol=0)

    def test_outputs_that_are_all_alike_are_seen(self, films):
        trained = build(DINOObjective)
        for head in (trained.projector, trained.teacher_projector):
            torch.nn.init.ones_(head.last_layer.weight_v)  # every output is the same one
        output = trained(batch_for(trained, films))
        assert output["teacher_entropy"].item() == pytest.approx(math.log(32), rel=1e-5)
        assert output["mean_entropy"].item() == pytest.approx(math.log(32), rel=1e-5)


class TestMasked:
    @pytest.mark.parametrize(
        ("grid", "ratio", "hidden"), [((64, 64), 0.6, 10), ((64, 96), 0.5, 12), ((32, 32), 0.1, 1)]
    )
    def test_whole_patches_are_hidden_the_same_number_on_every_film(self, grid, ratio, hidden):
        trained = build(MaskedObjective, mask_ratio=ratio)
        mask = trained.draw_mask(torch.zeros(5, 1, *grid))
        assert mask.shape == (5, 1, *grid)
        patches = mask.unfold(2, 16, 16).unfold(3, 16, 16).flatten(4)
        assert torch.equal(patches.amin(dim=4), patches.amax(dim=4))
        assert (patches[..., 0].sum(dim=(1, 2, 3)) == hidden).all()

    def test_every_patch_is_hidden_now_and_then(self):
        masks = build(MaskedObjective).draw_mask(torch.zeros(200, 1, 64, 64))
        share = masks.mean(dim=0)
        assert (share > 0.4).all() and (share < 0.8).all()  # 0.625 +- 5 standard deviations of 200 draws

    def test_error_is_that_of_the_hidden_pixels_alone(self):
        predicted, image = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
        mask = torch.zeros(2, 1, 4, 4)
        mask[0, :, :2, :2] = mask[1, :, 2:, :] = 1
        by_hand = [(predicted[0] - image[0])[:, :2, :2], (predicted[1] - image[1])[:, 2:, :]]
        expected = torch.cat([part.flatten() for part in by_hand]).abs().mean()
        torch.testing.assert_close(masked_error(predicted, image, mask), expected)
        elsewhere = image + 5 * (1 - mask) * torch.randn_like(image)
        assert torch.equal(masked_error(predicted, elsewhere, mask), masked_error(predicted, image, mask))

    def test_the_network_sees_nothing_of_the_hidden_patches(self, films):
        trained = build(MaskedObjective).eval()
        mask = trained.draw_mask(films)
        expected = trained.predict(films, mask)
        assert expected.shape == films.shape
        assert torch.equal(trained.predict(films + 3 * mask, mask), expected)
        assert not torch.equal(trained.predict(films + 3 * (1 - mask), mask), expected)

    def test_relative_error_of_a_prediction_in_one_gray_is_one(self, films, monkeypatch):
        trained = build(MaskedObjective)

        def gray(image, mask):
            means = [film[hidden == 0].mean() for film, hidden in zip(image, mask, strict=True)]
            return torch.stack(means).view(-1, 1, 1, 1).expand_as(image)

        monkeypatch.setattr(trained, "predict", gray)
        assert trained(films)["relative_error"].item() == pytest.approx(1, rel=1e-5)

    @pytest.mark.parametrize(
        ("options", "grid", "problem"),
        [
            ({"mask_ratio": 0.0}, (64, 64), "not a share"),
            ({"mask_ratio": 1.0}, (64, 64), "not a share"),
            ({"patch_size": 24}, (64, 64), "does not divide"),
            ({}, (48, 64), "does not divide"),
            ({"patch_size": 64}, (64, 64), "every patch would be hidden"),
        ],
    )
    def test_what_cannot_be_masked_is_refused(self, options, grid, problem):
        with pytest.raises(ConfigurationError, match=problem):
            build(MaskedObjective, **options)(torch.zeros(1, 1, *grid))
