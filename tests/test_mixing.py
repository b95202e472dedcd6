import pytest
import torch
from scipy.stats import beta, kstest
from torchvision.transforms import v2

from gdacli.mixing import cut_mix, mixup, snap_mix

SIZE = 16


def labelled(count: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of one value each, and a class for each: a mixture tells what it was made of."""
    values = torch.arange(count, dtype=torch.float32) / count
    return values[:, None, None, None].expand(count, 3, SIZE, SIZE).contiguous(), torch.eye(count)


def weights_of(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each image's own weight and its partner, the image itself where nothing was mixed in."""
    own = targets.diagonal().clone()
    others = targets - torch.diag(own)
    partner = torch.where(others.amax(1) > 0, others.argmax(1), torch.arange(len(targets)))
    return own, partner


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("label_alpha", [None, 4.0])
def test_mixup_weights_images_and_labels(label_alpha):
    images, targets = labelled()
    mixed, labels = mixup(images, targets, generator(), alpha=1.0, label_alpha=label_alpha)
    own, partner = weights_of(labels)
    values, mixture = images[:, 0, 0, 0], mixed[:, 0, 0, 0]
    assert torch.equal(mixed, mixture[:, None, None, None].expand_as(mixed))
    paired = partner != torch.arange(len(images))
    weight = ((mixture - values[partner]) / (values - values[partner]))[paired]
    if label_alpha is None:
        assert torch.allclose(weight, own[paired], atol=1e-5)
    else:
        assert not torch.allclose(weight, own[paired], atol=0.01)
        assert torch.equal(weight > 0.5, own[paired] > 0.5)
    assert sorted(partner.tolist()) == list(range(len(images)))


@pytest.mark.parametrize(("alpha", "label_alpha"), [(0.2, None), (1.0, 0.3), (0.2, 5.0)])
def test_mixup_draws_each_weight_from_its_beta(alpha, label_alpha):
    images, targets = torch.zeros(4000, 1, 1, 1), torch.zeros(4000, 2)
    images[::2] = 1
    targets[::2, 0], targets[1::2, 1] = 1, 1
    mixed, labels = mixup(images, targets, generator(), alpha=alpha, label_alpha=label_alpha)
    odd = targets[:, 1] == 1
    image_weight = torch.where(odd, 1 - mixed.flatten(), mixed.flatten())
    label_weight = labels.gather(1, targets.argmax(1, keepdim=True))[:, 0]
    pairs = label_weight < 1  # about half have a partner of the other kind
    assert 1800 < pairs.sum() < 2200
    assert kstest(image_weight[pairs].numpy(), beta(alpha, alpha).cdf).pvalue > 1e-3
    assert kstest(label_weight[pairs].numpy(), beta(label_alpha or alpha, label_alpha or alpha).cdf).pvalue > 1e-3


def test_cut_mix_weights_labels_by_the_area_that_was_cut():
    images, targets = labelled()
    mixed, labels = cut_mix(images, targets, generator())
    own, partner = weights_of(labels)
    replaced = (mixed != images)[:, 0]
    assert torch.equal(mixed, torch.where(replaced[:, None], images[partner], images))
    assert torch.allclose(own, 1 - replaced.float().mean((1, 2)))
    for mask in replaced:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert all((edge.int().diff() == 1).sum() <= 1 for edge in (rows, columns))
    assert replaced.any((1, 2)).sum() > 20


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_the_areas_of_cut_mix_are_torchvisions(alpha):
    images, targets = labelled(1000)
    _, labels = cut_mix(images[:, :1], targets, generator(), alpha=alpha)
    own, partner = weights_of(labels)
    ours = own[partner != torch.arange(1000)]
    transform = v2.CutMix(alpha=alpha, num_classes=2)
    torch.manual_seed(0)
    drawn = [transform(images[:2], torch.tensor([0, 1]))[1][0, 0] for _ in range(600)]
    theirs = torch.stack(drawn)
    # where nothing was cut our partner is not seen
    ours, theirs = ours[ours < 1], theirs[theirs < 1]
    for a, b in ((ours, theirs), (ours**2, theirs**2)):
        error = (a.var() / len(a) + b.var() / len(b)).sqrt()
        assert (a.mean() - b.mean()).abs() < 4 * error


def test_snap_mix_weights_labels_by_the_attention_in_the_boxes():
    """The images tell where a pixel was: channel 0 its column, 1 its row, 2 its image."""
    count = 32
    ramp = torch.arange(SIZE) / (SIZE - 1)
    images = torch.stack([ramp.expand(SIZE, SIZE), ramp[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)])
    images = images.repeat(count, 1, 1, 1)
    images[:, 2] = (torch.arange(count) / count)[:, None, None]
    maps = torch.rand(count, SIZE, SIZE, generator=generator(9))
    mixed, labels = snap_mix(images, torch.eye(count), generator(1), attention=lambda *_: maps, alpha=2.0)
    shares = maps - maps.amin((1, 2), keepdim=True)
    shares = shares / shares.sum((1, 2), keepdim=True)
    _, partner = weights_of(labels)
    checked = 0
    for row in range(count):
        replaced = (mixed[row, 2] - images[row, 2]).abs() > 1e-4
        rows, columns = (replaced.any(axis).nonzero().flatten() for axis in (1, 0))
        if not len(rows):
            assert torch.allclose(labels[row], torch.eye(count)[row])
            continue
        top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
        assert replaced[top : bottom + 1, left : right + 1].all()
        assert labels[row, row] == pytest.approx(1 - shares[row][replaced].sum().item(), abs=1e-5)
        if top == bottom or left == right:
            continue
        first_x, last_x = ((SIZE - 1) * mixed[row, 0, top, [left, right]]).round().long()
        first_y, last_y = ((SIZE - 1) * mixed[row, 1, [top, bottom], left]).round().long()
        taken = shares[partner[row]][first_y : last_y + 1, first_x : last_x + 1].sum().item()
        assert labels[row, partner[row]] == pytest.approx(taken, abs=1e-5)
        patch = mixed[row, 0, top, left : right + 1]  # the box is stretched evenly, corner on corner
        assert torch.allclose(patch, torch.linspace(patch[0], patch[-1], len(patch)), atol=1e-4)
        checked += 1
    assert checked > 10
    sums = labels.sum(1)
    assert sums.min() < 0.9
    assert sums.max() > 1.1


def test_snap_mix_of_a_map_without_contrast_goes_by_area():
    images, targets = labelled()
    mixed, labels = snap_mix(images, targets, generator(1), attention=lambda x, _: torch.ones(len(x), 4, 4))
    area = ((mixed - images).abs() > 1e-4)[:, 0].float().mean((1, 2))
    paired = weights_of(labels)[1] != torch.arange(len(images))
    assert paired.sum() > 20
    assert torch.allclose(labels.diagonal()[paired], 1 - area[paired], atol=1e-5)


def test_snap_mix_asks_for_attention_without_gradients():
    images, targets = labelled(4)
    asked: list[bool] = []

    def attention(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(torch.is_grad_enabled() or x is not images or labels is not targets)
        return x[:, 0, ::4, ::4] + torch.arange(4.0)

    snap_mix(images, targets, generator(), attention=attention)
    assert asked == [False]
