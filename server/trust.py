"""The trust that a run asks for, in words: for its tags, its log and the README."""

from __future__ import annotations

from conf.schema import Config

UNIT = "one customer, added or removed (all records of the customer)"

_SHARED_KEY = ("Partners share one secret key; the operator has none. No partner may collude "
               "with the operator: together they could open a single partner's update.")
NOISE_THAT_MATTERS = 0.15
"""Of PrivacyPlan.noise_to_signal: above it a run warns."""

_SUITES = {
    "shared_key": _SHARED_KEY,
    "shared_key_rlwe": f"{_SHARED_KEY} The cipher is Veilsum's own implementation of RLWE.",
    "plaintext": "No encryption: the operator can read every update.",
}
_PRIVACY = {
    "noise_shares": "The sum is private; one partner's update alone has only its share of the "
    "noise. Protected against {colluders} partner(s) that reveal their noise.",
    "local_dp": "Every update is private on its own, whoever reads it.",
    "none": "No differential privacy: the model may reveal customers.",
}


_OPENINGS = {
    "revealed": "The operator sees the model of every round.",
    "sealed": "The opener steps; the operator holds the model as ciphertext and sees the noised "
    "metrics alone. Any key holder can read the model (veilsum export).",
}


_HEAD = ("{} of the model: each partner's own, fitted to its own customers and sent to nobody. A "
         "recorded model holds the public start values in its place.")


def trust_statement(config: Config) -> dict[str, str]:
    """Tags of a run: suite, opening, unit, and who must not collude with whom."""
    privacy = _PRIVACY[config.privacy.name].format(colluders=config.privacy.colluders)
    heads = {} if config.model.head == "shared" else {"head": _HEAD.format(config.model.head)}
    return heads | {
        "suite": config.encryption.name,
        "opening": config.encryption.opening,
        "privacy": config.privacy.name,
        "unit": UNIT,
        "model": _OPENINGS[config.encryption.opening],
        "validation": "train/ at step r: the model that round r began with; val/: a mean over the "
                      "models up to it, about the last third",
        "trust": f"{_SUITES[config.encryption.name]} {_OPENINGS[config.encryption.opening]} "
                 f"{privacy}",
    }


def noise_warning(config: Config, noise_to_signal: float) -> str:
    """Says so where too few customers take part for this epsilon; else ""."""
    if noise_to_signal <= NOISE_THAT_MATTERS:
        return ""
    return (f"{config.expected_customers} customers are few for ε = {config.privacy.epsilon:g}: "
            f"over the whole run the noise is {noise_to_signal:.0%} of all that they could "
            "contribute if every one of them pulled the same way. The model may be worse than "
            "without privacy, even worse than the naive rule. More customers, a larger "
            "privacy.epsilon, a smaller model or a smaller strategy.learning_rate help; "
            "privacy=none shows what is lost.")
