"""Comparing next-token distributions: entropy and Kullback-Leibler divergence, in nats."""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns float64 log-probabilities over the last axis."""
    x: np.ndarray = logits - logits.max(axis=-1, keepdims=True).astype(np.float64)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def entropy(logits: np.ndarray) -> np.ndarray:
    """Returns the entropy of each row's distribution, from 0 to ln(vocab_size)."""
    log_p = log_softmax(logits)
    h: np.ndarray = -(np.exp(log_p) * log_p).sum(axis=-1)
    return h


def kl_divergence(reference: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns KL(reference || other) of each pair of rows."""
    log_p, log_q = log_softmax(reference), log_softmax(logits)
    kl: np.ndarray = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return kl


def deviation(logits: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference over the largest magnitude that was expected."""
    return float(np.abs(logits - expected).max() / np.abs(expected).max())
