"""Hidden checks of exercise 5: targets and their way back with random statistics."""

from checks.common import check, hint


@check("5h", "to_transition undoes targets, for random statistics and both kinds of next state", seconds=15)
def hidden_round_trip():
    import torch

    import ftfl

    generator = torch.Generator().manual_seed(12)
    for prediction in ("direct", "residual"):
        args = ftfl.Args(num_seeds=2, ensemble_size=3, num_elites=2, model_hidden_dim=4)
        args.next_state_prediction = prediction
        model = ftfl.Ensemble(4, 1, args)
        model.target_mean.copy_(5 * torch.randn(2, 1, 1, 5, generator=generator))
        model.target_std.copy_(0.1 + 10 * torch.rand(2, 1, 1, 5, generator=generator))
        obs, next_obs = (torch.randn(2, 3, 6, 4, generator=generator) for _ in range(2))
        rewards = torch.rand(2, 3, 6, generator=generator)
        batch = ftfl.Batch(obs, torch.zeros(2, 3, 6, 1), rewards, next_obs, torch.zeros(2, 3, 6))
        states, imagined = model.to_transition(obs, model.targets(batch))
        if not torch.allclose(imagined, rewards, atol=1e-4):
            hint(f"{prediction}: rewards do not come back from targets and to_transition as they were")
        if not torch.allclose(states, next_obs, atol=1e-4):
            hint(f"{prediction}: states do not come back from targets and to_transition as they were")
