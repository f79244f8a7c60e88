"""Hidden checks of exercise 4: rollouts with a termination rule and a model that can be foreseen."""

from checks.common import check, hint


@check(
    "4h", "imagine: a rollout that ended starts again at a real state; the buffer gets each step", seconds=15
)
def hidden_rollouts():
    import torch

    import ftfl

    args = ftfl.Args(
        num_seeds=2,
        ensemble_size=2,
        num_elites=1,
        model_hidden_dim=4,
        hidden_dim=4,
        rollouts_per_step=5,
        rollout_schedule="4:4:0:1",
        synthetic_buffer_size=40,
    )

    class CountingModel:
        """Each step adds 1 to the state; the reward is the state that the step came from."""

        def sample(self, obs, actions):
            return obs + 1, obs[..., 0]

    torch.manual_seed(13)
    agent, buffer = ftfl.SAC(1, 1, args), ftfl.ReplayBuffer(2, 8, 1, 1)
    real, zeros = torch.tensor([[0.25], [0.5]]).expand(2, 8), torch.zeros(2, 8)  # each seed has its own
    buffer.add(ftfl.Batch(real[..., None], zeros[..., None], zeros, real[..., None] + 1, zeros))
    synthetic = ftfl.ReplayBuffer(2, 40, 1, 1)
    ftfl.imagine(agent, CountingModel(), buffer, synthetic, lambda s: s[..., 0] >= 2, 1, args)
    if synthetic.size != 20:
        hint(f"5 rollouts of 4 steps are 20 transitions per seed, not {synthetic.size}")
    states = synthetic.data.obs[:, :20, 0]
    if (states >= 2).any():
        hint("a rollout goes on from an imagined terminal state; it must start again at a real one")
    expected = torch.tensor([0.0, 1, 0, 1]).repeat_interleave(5).expand(2, 20)
    if not torch.equal(states, expected + real[:, :1]):
        hint("the states that rollouts step from are wrong: the first is real, each next one is imagined")
    if not torch.equal(synthetic.data.terminations[:, :20], expected):
        hint("terminations must be 1 exactly where the next state is terminal")
    if not torch.equal(synthetic.data.rewards[:, :20], states):
        hint("the reward belongs to the step that it is stored with")
