"""Hidden checks of exercise 6: other shapes, and that the batch is left as it was."""

from checks.common import check, hint, variant


@check(
    "6h", "raw_targets with other shapes, with normalized targets, and without changing the batch", seconds=15
)
def hidden_raw_targets():
    import torch

    import ftfl

    share = variant()["residual"]
    generator = torch.Generator().manual_seed(11)
    for direct in (True, False):
        for lead, obs_dim in [((1, 1, 7), 1), ((3, 6), 17)]:
            args = ftfl.Args(
                num_seeds=lead[0],
                ensemble_size=2,
                num_elites=1,
                model_hidden_dim=4,
                next_state_prediction="direct" if direct else "residual",
            )
            model = ftfl.Ensemble(obs_dim, 2, args)
            model.target_mean += 3  # raw targets are in the environment's units, whatever the statistics
            obs, next_obs = (torch.randn(*lead, obs_dim, generator=generator) for _ in range(2))
            rewards = torch.rand(lead, generator=generator)
            batch = ftfl.Batch(obs, torch.zeros(*lead, 2), rewards, next_obs, torch.ones(lead))
            before = [x.clone() for x in batch]
            result = model.raw_targets(batch)
            if any((x != y).any() for x, y in zip(batch, before)):
                hint("raw_targets changes the batch that it is given: an operation in place")
            expected = torch.cat(
                [before[3] if direct else before[3] - share * before[0], rewards.unsqueeze(-1)], -1
            )
            if result.shape != expected.shape or not torch.allclose(result, expected):
                hint(f"raw_targets is wrong for a batch of shape {(*lead, obs_dim)}, direct: {direct}")
