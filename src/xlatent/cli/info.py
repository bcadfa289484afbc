"""``xlatent info``: what was read from a PHA file and found with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlatent.cli.options import OneArfOption, OneBackgroundOption, OneRmfOption
from xlatent.core.messages import redirect_warnings

if TYPE_CHECKING:
    from xlatent.core.spectrum import Spectrum


def info(
    pha: Annotated[Path, typer.Argument(help="PHA file.", show_default=False)],
    arf: OneArfOption = None,
    rmf: OneRmfOption = None,
    background: OneBackgroundOption = None,
) -> None:
    """Say what a PHA file holds and which files were found for it, warnings included."""
    from xlatent.formats.ogip_spectrum import read_spectra

    with redirect_warnings(lambda text: None):  # they are among the facts
        spectra = read_spectra(pha, arf, rmf, background)
    for i, spectrum in enumerate(spectra):
        if i:
            typer.echo()
        for label, text in _facts(spectrum):
            typer.echo(f"{label:<12}{text}")


def _facts(spectrum: "Spectrum") -> list[tuple[str, str]]:
    """What there is to say, line by line; what the file does not tell is said to be unknown."""
    import numpy as np

    from xlatent.core.flags import FLAGS
    from xlatent.core.spectrum_flags import covered_band, spectrum_flags

    meta = spectrum.meta
    facts = [("name", spectrum.name), ("file", str(meta.get("file", "unknown")))]
    for key in ("object", "telescope", "instrument", "date", "obsid"):
        facts.append((key, str(meta.get(key, "unknown"))))
    if "ra" in meta and "dec" in meta:
        facts.append(("position", f"{meta['ra']}, {meta['dec']}"))
    facts.append(("exposure", f"{spectrum.exposure:.6g} s"))
    numbers = f"{spectrum.channels[0]}-{spectrum.channels[-1]}" if spectrum.channels is not None else "unnumbered"
    facts.append(("channels", f"{spectrum.counts.size} ({numbers}), {np.count_nonzero(~spectrum.good)} bad"))
    facts.append(("counts", f"{spectrum.counts.sum():.6g}"))
    if spectrum.response is not None:
        band = spectrum.band_counts(0.5, 8.0)
        net = f"{band.net:.6g} +- {band.net_err:.3g} net of {band.background:.4g} background"
        facts.append(("0.5-8 keV", f"{band.total:.6g} counts, {net}"))
        lo, hi = covered_band(spectrum)
        facts.append(("covered", f"{lo:.3g}-{hi:.3g} keV of it"))
    for label, value in (("BACKSCAL", spectrum.backscale), ("AREASCAL", spectrum.areascale)):
        facts.append((label, _range(value)))
    if spectrum.background is None:
        facts.append(("background", "none"))
    else:
        b, where = spectrum.background, spectrum.background.meta.get("file", "")
        where = "the same file" if where == meta.get("file") else where
        facts.append(("background", f"{where}: {b.counts.sum():.6g} counts in {b.exposure:.6g} s"))
        facts.append(("", f"scale to the source region {_range(spectrum.background_scale)}"))
    if (r := spectrum.response) is None:
        facts.append(("response", "none"))
    else:
        grid = f"{r.energy_lo.size} energies {r.energy_lo[0]:.4g}-{r.energy_hi[-1]:.4g} keV"
        area = f"up to {r.area.max():.4g} cm2 at {r.energy_lo[np.argmax(r.area)]:.3g} keV"
        facts.append(("ARF", f"{r.meta['arf']}: {area}" if r.meta.get("arf") else "none"))
        channels = f"{r.chan_lo.size} channels {r.chan_lo[0]:.4g}-{r.chan_hi[-1]:.4g} keV"
        sums = r.redistribution.sum(axis=1)
        facts.append(("RMF", f"{r.meta.get('rmf', 'unknown')}: {grid}; {channels}"))
        facts.append(("", f"photons redistributed {sums.min():.3g} to {sums.max():.3g}"))
    for key in ("quality", "grouping"):
        flags = getattr(spectrum, key)
        if flags is None:
            facts.append((key, "none"))
        else:
            values = ", ".join(f"{v} ({n})" for v, n in zip(*np.unique(flags, return_counts=True), strict=True))
            facts.append((key, values + ("; carried, not applied" if key == "grouping" else "")))
    facts.extend(("warning", text) for text in meta.get("warnings", ()))
    known = {flag.name: flag for flag in FLAGS}
    for name in dict.fromkeys(spectrum_flags(spectrum)):
        facts.append(("flag", f"{name}: {known[name].meaning}; {known[name].remedy}"))
    return facts


def _range(value: object) -> str:
    import numpy as np

    low, high = float(np.min(value)), float(np.max(value))  # type: ignore[call-overload]
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}, one for each channel"
