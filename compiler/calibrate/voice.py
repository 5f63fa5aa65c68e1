"""Sound that a voice could have made: what a model of signals in time hears where nobody gives it any.

White noise is no such signal: it drives what was trained on speech far beyond what it has seen, and its outputs hardly
vary.
"""

import numpy as np

RATE = 16000  # numbers a second
PITCH = (90.0, 260.0)  # Hz
FORMANTS = ((300.0, 800.0), (900.0, 2300.0), (2300.0, 3200.0))  # Hz
BANDWIDTHS = (60.0, 200.0)  # Hz
HISS = (2000.0, 6000.0)  # Hz, from where on breath is heard
SECONDS = (0.04, 0.25)  # of a sound
LEVELS = (-35.0, -12.0)  # dB below the largest number, its root mean square
FLOOR = 1e-3  # of the room
VOICED, BREATH = 0.6, 0.2  # of the sounds; the others are pauses


def speak(rng: np.random.Generator, samples: int, length: int) -> np.ndarray:
    """Samples ``[samples, length]`` in [-1, 1]: sounds with a pitch and formants, breath and pauses, as they come.

    Source: Acoustic theory of speech production, Fant 1960: a train of pulses through resonances.
    """
    made = FLOOR * rng.standard_normal((samples, length))
    for one in made:
        at = -int(RATE * SECONDS[0] * rng.random())
        while at < length:
            size = int(RATE * rng.uniform(*SECONDS))
            sound = _sound(rng, size)[max(-at, 0) : length - at]
            one[max(at, 0) : max(at, 0) + len(sound)] += sound
            at += size
    return np.clip(made, -1, 1)


def _sound(rng: np.random.Generator, size: int) -> np.ndarray:
    """One sound, or a pause."""
    kind = rng.random()
    if kind >= VOICED + BREATH:
        return np.zeros(size)
    pitch = float(np.exp(rng.uniform(*np.log(PITCH)))) * np.linspace(1, rng.uniform(0.8, 1.25), size)
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE + rng.random()), prepend=0.0)
    source, passes = (pulses, _mouth) if kind < VOICED else (rng.standard_normal(size), _teeth)
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    spectrum = np.fft.rfft(source - source.mean()) * passes(rng, frequency)
    sound = np.fft.irfft(spectrum, size) * np.hanning(size)
    level = 10 ** (rng.uniform(*LEVELS) / 20)
    return np.asarray(sound * (level / max(float(np.sqrt(np.square(sound).mean())), 1e-12)))


def _mouth(rng: np.random.Generator, frequency: np.ndarray) -> np.ndarray:
    """What resonances let through, above a pulse whose overtones fall."""
    passed = 1 / (1 + frequency / 500)
    for low, high in FORMANTS:
        place, width = rng.uniform(low, high), rng.uniform(*BANDWIDTHS)
        ratio = frequency / place
        passed = passed / np.sqrt((1 - ratio**2) ** 2 + (ratio * width / place) ** 2)
    return np.asarray(passed)


def _teeth(rng: np.random.Generator, frequency: np.ndarray) -> np.ndarray:
    """What breath sounds like between teeth: noise above some frequency."""
    return np.asarray(1 / (1 + (rng.uniform(*HISS) / np.maximum(frequency, 1.0)) ** 4))
