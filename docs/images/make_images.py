"""Writes the pictures of the README: the data flow and the speed chart, each for light and for dark pages.

    python docs/images/make_images.py

Only the standard library is used. The figures of the speed chart are those of docs/results/speed.md,
sections "Generation" (f32) and "A weighted-DPO step", 135M parameters.
"""

from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# Both themes have no background: the page shows through.
THEMES = {
    "light": {
        "text": "#1f2328", "muted": "#59636e", "line": "#818b98", "frame": "#d1d9e0", "box": "#f6f8fa",
        "accent": "#0a6c74", "accent_box": "#dff3f2", "peers": ["#8c6d1f", "#7a5a9e", "#8c6d1f"],
    },
    "dark": {
        "text": "#e6edf3", "muted": "#9198a1", "line": "#7d8590", "frame": "#3d444d", "box": "#161b22",
        "accent": "#4fc3c8", "accent_box": "#0f2f33", "peers": ["#d6ae4c", "#b795e0", "#d6ae4c"],
    },
}

# (group, [(side, value, ratio)]). Ratios are the measured ones, run by run, not quotients of the medians.
GENERATION = [
    ("1 at a time", [("optune", "52", None), ("transformers", "30", "1.8×"), ("llama.cpp", "45", "1.2×")]),
    ("8 at a time", [("optune", "318", None), ("transformers", "120", "2.6×"), ("llama.cpp", "176", "1.8×")]),
    ("32 at a time", [("optune", "643", None), ("transformers", "315", "2.0×"), ("llama.cpp", "296", "2.2×")]),
]
STEP = [
    ("seconds a step", [("optune", "6.1", None), ("PyTorch", "12.4", "2.0×")]),
    ("peak memory, MiB", [("optune", "3,229", None), ("PyTorch", "7,551", "2.3×")]),
]


class Picture:
    """Elements of an SVG in one theme."""

    def __init__(self, width, height, theme, title):
        self.width, self.height, self.theme, self.title, self.parts = width, height, theme, title, []

    def text(self, x, y, words, size=13, color="text", anchor="start", weight=400):
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{self.theme.get(color, color)}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>'
        )

    def box(self, x, y, width, height, fill, stroke, dashed=False, radius=7):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        fill = self.theme.get(fill, fill)
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" '
            f'stroke="{self.theme[stroke]}"{dash}/>'
        )

    def path(self, points, color="line", dashed=False):
        """A line through the points with an arrow at its end."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        line = " L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path d="M{line}" fill="none" stroke="{self.theme[color]}" stroke-width="1.4"{dash}/>')
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        left, right = (x - 7 * dx - 4 * dy, y - 7 * dy - 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy + 4 * dx)
        self.parts.append(
            f'<path d="M{x} {y} L{left[0]} {left[1]} L{right[0]} {right[1]} Z" fill="{self.theme[color]}"/>'
        )

    def write(self, name):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="{FONT}" role="img">\n<title>{escape(self.title)}</title>'
        )
        (FOLDER / name).write_text("\n".join([head, *self.parts, "</svg>"]) + "\n", encoding="utf-8")


def flow(theme):
    """The loop: what each iteration reads and makes, and what the next one takes over."""
    picture = Picture(900, 280, theme, "One iteration: prompts, selection, responses, rewards, pool, pairs, policy, evaluation")
    width, height, gap, top, first = 86, 42, 24, 112, 10
    nodes = [
        ("prompts", "your data"), ("selection", "lowest rewards"), ("responses", "sampled"), ("rewards", "your reward"),
        ("pool", "new and carried"), ("pairs", "best, worst"), ("policy", "weighted DPO"), ("evaluation", "held-out"),
    ]
    left = [first + index * (width + gap) for index in range(len(nodes))]
    middle = top + height // 2
    picture.box(left[1] - 14, 14, left[-1] + width - left[1] + 26, 252, "none", "frame", radius=10)
    picture.text(left[1], 36, "iteration t = 1 … T", 13, "muted")
    for index, (name, note) in enumerate(nodes):
        hero = name in ("selection", "pool")
        picture.box(left[index], top, width, height, "accent_box" if hero else "box", "accent" if hero else "line")
        picture.text(left[index] + width // 2, middle + 5, name, 13, anchor="middle", weight=600)
        picture.text(left[index] + width // 2, top + height + 17, note, 11, "muted", "middle")
        if index:
            picture.path([(left[index - 1] + width, middle), (left[index] - 2, middle)])
    # The last policy samples; the new one takes its place.
    upper = 46
    picture.box(left[2] - 6, upper, width + 12, 28, "none", "line", dashed=True)
    picture.text(left[2] + width // 2, upper + 19, "policy[t−1]", 13, anchor="middle")
    picture.path([(left[2] + width // 2, upper + 28), (left[2] + width // 2, top - 2)])
    picture.path([(left[6] + width // 2, top), (left[6] + width // 2, upper + 14), (left[2] + width + 8, upper + 14)], dashed=True)
    picture.text(left[4] + width // 2, upper + 8, "next iteration", 11, "muted", "middle")
    # The last pool ranks the prompts and keeps the responses of the others.
    lower, under = 212, top + height + 25
    start, end, turn = left[2] - 14, left[2] + width - 4, left[4] + 26
    picture.box(start, lower, end - start, 28, "none", "accent", dashed=True)
    picture.text((start + end) // 2, lower + 19, "pool[t−1]", 13, anchor="middle")
    picture.path([(start, lower + 14), (left[1] + width // 2, lower + 14), (left[1] + width // 2, under)], "accent")
    picture.text(left[1], lower + 46, "ranks the prompts", 11, "muted")
    picture.path([(end, lower + 9), (turn, lower + 9), (turn, under)], "accent")
    picture.text(end + 10, lower + 2, "responses carried over", 11, "muted")
    picture.path([(left[4] + 62, under), (left[4] + 62, lower + 20), (end + 2, lower + 20)], dashed=True)
    picture.text(end + 10, lower + 36, "next iteration", 11, "muted")
    return picture


def panel(picture, x, width, y, title, note, groups, scale=None):
    """Horizontal bars in groups. `scale` is the value of the longest bar; left out, each group has its own."""
    picture.text(x, y, title, 14, weight=600)
    picture.text(x, y + 18, note, 11, "muted")
    y += 42
    names, room = 92, 96
    peers = ["transformers", "llama.cpp", "PyTorch"]
    for group, bars in groups:
        values = [float(shown.replace(",", "")) for _, shown, _ in bars]
        longest = scale or max(values)
        picture.text(x, y, group, 12, "muted")
        y += 8
        for (side, shown, ratio), value in zip(bars, values):
            is_ours = side == "optune"
            color = picture.theme["accent"] if is_ours else picture.theme["peers"][peers.index(side)]
            length = round((width - names - room) * value / longest, 1)
            picture.text(x + names - 8, y + 12, side, 12, "text", "end", 600 if is_ours else 400)
            picture.parts.append(f'<rect x="{x + names}" y="{y}" width="{length}" height="15" rx="2" fill="{color}"/>')
            picture.text(x + names + length + 6, y + 12, f"{shown} ({ratio})" if ratio else shown, 12)
            y += 20
        y += 18
    return y


def speed(theme):
    """Generation and a training step of the 135M shape on two CPU cores."""
    picture = Picture(900, 318, theme, "Speed on two CPU cores beside transformers, llama.cpp and PyTorch")
    note = "135M parameters, f32, 2 CPU cores"
    panel(picture, 10, 460, 24, "Generation, tokens a second", f"{note}; longer is better", GENERATION, 643)
    y = panel(picture, 490, 400, 24, "A weighted-DPO step on 8 pairs", f"{note}; shorter is better", STEP)
    remarks = [
        "In brackets: how many times optune is faster,", "or how many times more memory the peer takes.",
        "An hour earlier: PyTorch 10.4 to 10.9 s,", "optune 6.5 s, a ratio of 1.7.",
    ]
    for index, remark in enumerate(remarks):
        picture.text(490, y + 12 + 17 * index, remark, 11, "muted")
    return picture


for theme_name, colors in THEMES.items():
    flow(colors).write(f"flow-{theme_name}.svg")
    speed(colors).write(f"speed-{theme_name}.svg")
