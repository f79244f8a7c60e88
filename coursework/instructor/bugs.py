"""Exercise 7's bugs: variants of ftfl.py with one mistake each, and what in their logs betrays them.

    python coursework/instructor/bugs.py              # writes coursework/instructor/BUGS.md
    python coursework/instructor/bugs.py DIR          # writes every variant to DIR/ID.py, to run it by hand

Students get the descriptions and the logs, but neither this file nor BUGS.md.
"""

import random
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent.parent / "ftfl.py"
LOGS = HERE.parent / "data" / "bugs"
SALT = "which letter is which"

sys.path.insert(0, str(HERE.parent / "checks"))
from bug_logs import gaps, read_log  # noqa: E402


class Bug(NamedTuple):
    """One mistake: `old` stands exactly once in ftfl.py, and `new` in its place is the variant."""

    id: str
    description: str  # what the code does wrong; students read this
    old: str
    new: str
    tags: tuple  # the logged tags that betray it: any of them is right evidence
    how: str  # how they betray it
    repair: str


BUGS = (
    Bug(
        "reward_not_scaled_back",
        "The imagined reward is returned in the units of training, without std and mean.",
        "        return next_obs, prediction[..., -1]\n",
        """        reward = (prediction[..., -1] - self.target_mean[..., -1]) / self.target_std[..., -1]
        return next_obs, reward
""",
        ("model/reward_r2", "rewards/synthetic"),
        "rewards/synthetic is near 0 where rewards/real is near 1, and model/reward_r2 is below 0, although "
        "model/holdout_mse and model/next_state_r2 are as good as ever.",
        "to_transition: y = z std + mean for the reward's dimension, too.",
    ),
    Bug(
        "mean_not_added",
        "Predictions are multiplied by the targets' std, but their mean is not added.",
        "prediction = prediction * self.target_std + self.target_mean",
        "prediction = prediction * self.target_std",
        ("model/reward_r2", "model/next_state_r2", "rewards/synthetic", "model/out_of_range"),
        "rewards/synthetic is near 0 where rewards/real is near 1, and model/next_state_r2 is far below 0, "
        "while model/holdout_mse, in the units of training, is as good as ever.",
        "to_transition: y = z std + mean.",
    ),
    Bug(
        "wrong_reward_column",
        "The imagined reward is read from the first column of the prediction, not from the last.",
        "return next_obs, prediction[..., -1]",
        "return next_obs, prediction[..., 0]",
        ("model/reward_r2", "rewards/synthetic"),
        "model/reward_r2 is below 0 and rewards/synthetic stands near 1.2, the height of the torso, "
        "whatever rewards/real does.",
        "to_transition: prediction[..., -1]; raw_targets puts the reward last.",
    ),
    Bug(
        "state_added_to_direct",
        "The targets are next states, but a rollout adds the prediction to the state, as for state changes.",
        "next_obs = prediction[..., :-1]",
        "next_obs = obs + prediction[..., :-1]",
        ("model/next_state_r2", "model/out_of_range"),
        "model/next_state_r2 is far below 0 and model/out_of_range is high, while model/holdout_mse and "
        "model/reward_r2 are as good as ever.",
        "to_transition: with direct targets the prediction is the next state.",
    ),
    Bug(
        "logvar_sign",
        "The squared error is multiplied by the predicted variance instead of divided by it.",
        " * (-logvar).exp()",
        " * logvar.exp()",
        (
            "model/variance_loss",
            "model/nll",
            "model/mse_loss",
            "model/predicted_std",
            "rewards/synthetic_std",
        ),
        "model/variance_loss falls to its bound, -10, and model/mse_loss to nearly 0: a small variance now "
        "costs nothing. model/predicted_std is tiny.",
        "update: (y - mean)^2 exp(-logvar).",
    ),
    Bug(
        "normalizer_never_fitted",
        "Mean and std are never measured: inputs and targets are used in the environment's units.",
        "    model.fit_normalizers(buffer.take(train_rows))\n",
        "",
        ("model/holdout_mse", "model/next_state_r2", "model/reward_r2", "model/nll", "model/mse_loss"),
        "model/holdout_mse is several times the correct script's, and model/next_state_r2 is far below 0, "
        "at every training: inputs and targets in the environment's units are learned far more slowly.",
        "train_model: fit_normalizers before the first gradient step.",
    ),
    Bug(
        "terminal_ignored",
        "The critics' target takes a terminal state for one from which the episode goes on.",
        "return batch.rewards + self.gamma * (1 - batch.terminations) * next_v",
        "return batch.rewards + self.gamma * next_v",
        ("losses/qf1_values", "losses/qf2_values"),
        "losses/qf1_values rises faster than the correct script's, and does not stop at what episodes of "
        "this length can bring.",
        "q_target: (1 - terminations) before the value of the next state.",
    ),
    Bug(
        "target_never_updated",
        "The target critics stay as they were at the start.",
        "target_param.lerp_(param, self.tau)",
        "target_param.lerp_(target_param, self.tau)",
        ("losses/qf1_values", "losses/qf2_values", "eval/q_start"),
        "losses/qf1_values and losses/qf2_values both stay at the reward of a single step, and "
        "losses/qf_loss is small.",
        "update: Q' <- (1 - tau) Q' + tau Q.",
    ),
    Bug(
        "target_copied",
        "The target critics become the critics at every update, without smoothing.",
        "target_param.lerp_(param, self.tau)",
        "target_param.copy_(param)",
        ("losses/qf_loss", "losses/qf1_values", "losses/qf2_values"),
        "losses/qf1_values runs away to thousands, where no return is beyond some hundreds, and "
        "losses/qf_loss with it.",
        "update: Q' <- (1 - tau) Q' + tau Q.",
    ),
    Bug(
        "second_critic_untrained",
        "Only the first critic's loss is minimized.",
        "self.q_optimizer.minimize(qf_loss.sum())",
        "self.q_optimizer.minimize(qf_loss[:, 0].sum())",
        ("losses/qf2_values",),
        "losses/qf2_values never leaves its first value, near 0. As the smaller of the two makes the target, "
        "losses/qf1_values stays at the reward of a single step.",
        "update: the loss is the sum over both critics.",
    ),
    Bug(
        "entropy_sign_in_target",
        "The entropy bonus is subtracted in the critics' target.",
        "next_v = next_q - self.log_alpha.exp() * next_log_probs",
        "next_v = next_q + self.log_alpha.exp() * next_log_probs",
        ("losses/qf1_values", "losses/qf2_values", "eval/q_start"),
        "losses/entropy is soon near 2, so that its bonus should raise losses/qf1_values; here it falls "
        "below 0 at first, although rewards are near 1, and stays below the correct script's.",
        "q_target: minus alpha log pi.",
    ),
    Bug(
        "entropy_sign_in_actor",
        "The actor's loss rewards a small entropy.",
        "actor_loss = (alpha.detach() * log_probs - min_q).mean(-1)",
        "actor_loss = (-alpha.detach() * log_probs - min_q).mean(-1)",
        ("losses/entropy", "losses/alpha", "losses/alpha_loss"),
        "losses/entropy falls without bound, and losses/alpha grows to bring it up, in vain.",
        "update: alpha log pi - min Q.",
    ),
    Bug(
        "alpha_loss_sign",
        "The temperature falls where the entropy is too small, and rises where it is large enough.",
        "alpha_loss = (-alpha * (log_probs.detach() + self.target_entropy)).mean(-1)",
        "alpha_loss = (alpha * (log_probs.detach() + self.target_entropy)).mean(-1)",
        ("losses/alpha", "losses/alpha_loss", "losses/entropy"),
        "losses/alpha grows without bound although losses/entropy is above its target of -1.5 all the "
        "time; losses/qf1_values grows with it.",
        "update: minus alpha times (log pi + target entropy).",
    ),
    Bug(
        "tanh_not_corrected",
        "log pi is that of the Gaussian before the tanh.",
        "log_probs = (log_normal - log_derivative).sum(-1)",
        "log_probs = log_normal.sum(-1)",
        ("losses/action_size", "losses/alpha", "losses/alpha_loss", "losses/entropy"),
        "Nothing speaks against saturated actions: losses/action_size goes to 1, and losses/entropy to "
        "10, where a uniform policy over three actions in [-1, 1] has 2.1.",
        "Actor.sample: log N(u) minus the logarithm of the tanh's derivative.",
    ),
)


def variant(bug, source=None):
    """The text of ftfl.py with this bug in it. Raises if `old` does not stand there exactly once."""
    source = SCRIPT.read_text() if source is None else source
    if (count := source.count(bug.old)) != 1:
        raise ValueError(f"{bug.id}: the text to replace stands {count} times in ftfl.py, not once")
    return source.replace(bug.old, bug.new)


def letters():
    """{letter: bug}, in an order that follows neither the list nor the ids."""
    shuffled = random.Random(SALT).sample(sorted(BUGS), len(BUGS))
    return {chr(ord("A") + i): bug for i, bug in enumerate(shuffled)}


def table():
    """BUGS.md: each letter's bug, what betrays it, by how much, and the repair."""
    correct = read_log(LOGS / "correct.csv")
    lines = [
        "# The bugs of exercise 7: for instructors only",
        "",
        "Written by `python coursework/instructor/bugs.py` from `bugs.py` and the logs.",
        "*Gap*: by how many widths of the six correct seeds' range the nearest of the three seeds lies",
        "outside of it, in the tag's first value, the mean of its last half, or its number of points:",
        "the largest of these, at most 1,000.",
        "",
        "| log | id | what the code does wrong | betrayed by (gap) | how | repair |",
        "|---|---|---|---|---|---|",
    ]
    for letter, bug in letters().items():
        found = gaps(read_log(LOGS / f"{letter}.csv"), correct)
        largest = {tag: max(found[tag].values()) for tag in bug.tags}
        tags = ", ".join(f"{tag} ({min(gap, 1_000):.1f})" for tag, gap in largest.items())
        lines.append(f"| {letter} | {bug.id} | {bug.description} | {tags} | {bug.how} | {bug.repair} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        for bug in BUGS:
            (folder / f"{bug.id}.py").write_text(variant(bug))
    else:
        (HERE / "BUGS.md").write_text(table())
