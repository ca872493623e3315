// The answer: the photo, where the model looked, bars, and a table of several photos. Python holds
// all of it as traits; names and labels are shown as text, never read as HTML.

const BARS = 5; // the others are behind “more”

// Red, green, blue and opacity from the least evidence to the most. Brightness grows, so that a
// colour-blind person can read it.
const COLOURS = [
  [20, 12, 60, 0],
  [98, 25, 128, 70],
  [197, 50, 102, 130],
  [248, 127, 42, 165],
  [252, 232, 120, 190],
];

/** Make an element: h('p', {className: 'a'}, 'text'). */
function h(tag, properties = {}, ...children) {
  const { aria = {}, ...own } = properties;
  const element = Object.assign(document.createElement(tag), own);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

const button = (text, onClick, properties = {}) => {
  const element = h('button', { type: 'button', className: 'ic-button', ...properties }, text);
  element.addEventListener('click', onClick);
  return element;
};

/** A name of a class or a file, in whichever direction it is written. */
const named = (text, className) => h('bdi', { className }, text);

/** An image of bytes; its address is given back as soon as it is decoded. */
function image(bytes, type, properties) {
  const src = URL.createObjectURL(new Blob([bytes], { type }));
  const element = h('img', { src, ...properties });
  element.addEventListener('load', () => URL.revokeObjectURL(src), { once: true });
  return element;
}

function bar([label, probability, number]) {
  const part = h('span', { className: 'ic-part' });
  part.style.width = `${100 * probability}%`;
  const track = h('span', { className: 'ic-track', aria: { hidden: 'true' } }, part);
  return h('li', {}, named(label, 'ic-label'), h('span', { className: 'ic-number' }, number), track);
}

function bars({ bars: classes, known }, texts) {
  const list = (some) => h('ol', { className: 'ic-bars', aria: { label: texts.bars } }, ...some.map(bar));
  const box = h('div', { className: known ? '' : 'ic-unsure' }, list(classes.slice(0, BARS)));
  const others = classes.slice(BARS);
  if (others.length) {
    const more = h('summary', {}, fill(texts.more, { count: others.length }));
    box.append(h('details', {}, more, list(others)));
  }
  return box;
}

/** Asks what the photo shows. Without a click it is not kept; Python says what became of it. */
function question(model, texts) {
  const { photo } = model.get('feedback');
  const { bars: classes, known } = model.get('answer');
  const send = (message) => model.send({ photo, ...message });
  const choice = (name, index) => button(name, () => send({ kind: 'keep', index }));
  const others = classes.map(([label], index) => [label, index]).slice(known ? 1 : 0);
  others.sort(([a], [b]) => a.localeCompare(b));
  const list = h(
    'div',
    { className: 'ic-ways' },
    ...others.map(([label, index]) => choice(named(label), index)),
    choice(texts.something_else, classes.length),
  );
  const open = (isOpen) => {
    list.hidden = !isOpen;
    wrong.setAttribute('aria-expanded', String(isOpen));
  };
  const wrong = button(texts.it_is, () => open(list.hidden));
  const right = known ? [choice(texts.right, 0)] : [];
  const ask = h('span', {}, known ? texts.is_right : texts.what);
  const ways = h('div', { className: 'ic-ways' }, ask, ...right, ...(known ? [wrong] : []));
  const consent = h('p', { className: 'ic-quiet' }, texts.consent);
  const said = h('span', { role: 'status' });
  const undo = button(texts.undo, () => send({ kind: 'undo' }), { className: 'ic-link' });
  const thanks = h('div', {}, said, ' ', undo);
  const element = h('div', { className: 'ic-question' }, ways, list, consent, thanks);

  function update() {
    const state = model.get('feedback');
    if (state.photo !== photo) return; // another card is on its way
    const isUsed = element.contains(document.activeElement);
    open(!known && !state.said);
    said.textContent = state.said;
    ways.hidden = consent.hidden = Boolean(state.said);
    undo.hidden = !state.can_undo;
    if (isUsed) element.querySelector('button:not([hidden], [hidden] *)')?.focus();
  }
  update();
  return { element, update };
}

/** Where the model looked: a pixel for each cell, which the browser enlarges smoothly. */
function heatMap({ cells, width, height, box: [left, top, across, down] }) {
  const element = h('canvas', { className: 'ic-heat', width, height, aria: { hidden: 'true' } });
  const pixels = new ImageData(width, height);
  for (let cell = 0; cell < width * height; cell += 1) {
    const place = (cells.getUint8(cell) / 255) * (COLOURS.length - 1);
    const [from, to] = [COLOURS[Math.floor(place)], COLOURS[Math.ceil(place)]];
    const mixed = from.map((value, channel) => value + (place % 1) * (to[channel] - value));
    pixels.data.set(mixed, 4 * cell);
  }
  element.getContext('2d').putImageData(pixels, 0, 0);
  const percent = (part) => `${100 * part}%`;
  Object.assign(element.style, { left: percent(left), top: percent(top) });
  Object.assign(element.style, { width: percent(across), height: percent(down) });
  return element;
}

/** The photo, the bars, and the button that lays the heat map over the photo; of a frame of the
 * camera only the bars. */
function card(model, texts) {
  const answer = model.get('answer');
  const preview = model.get('preview');
  const side = h('div', { className: 'ic-side' }, bars(answer, texts));
  if (!preview.byteLength) return { element: h('div', { className: 'ic-card' }, side) };
  const frame = h('div', { className: 'ic-frame' });
  frame.append(image(preview, 'image/jpeg', { alt: texts.preview }));
  if (model.get('heat').cells) {
    const heat = heatMap(model.get('heat'));
    const legend = h('p', { className: 'ic-quiet', role: 'status' });
    const toggle = button(
      texts.heat,
      () => {
        const isShown = !frame.contains(heat);
        if (isShown) frame.append(heat);
        else heat.remove();
        toggle.setAttribute('aria-pressed', String(isShown));
        legend.textContent = isShown ? fill(texts.heat_legend, answer) : '';
      },
      { aria: { pressed: 'false' } },
    );
    side.append(toggle, legend);
  }
  const asked = model.get('feedback').photo && question(model, texts);
  if (asked) side.append(asked.element);
  return { element: h('div', { className: 'ic-card' }, frame, side), update: asked?.update };
}

/** A row of the table; a click opens the photo's answer. */
function row({ name, problem, thumbnail, shown, number, known }, open, texts) {
  const cell = (...content) => h('td', {}, ...content);
  const head = (content) => h('th', { scope: 'row' }, content);
  const small = cell(thumbnail ? image(thumbnail, 'image/jpeg', { alt: '' }) : '');
  if (problem) return h('tr', {}, small, head(named(name)), h('td', { colSpan: 2 }, problem));
  const unsure = [h('span', { className: 'ic-mark' }, texts.unsure), ' ', fill(texts.closest, { label: shown })];
  const opener = h('button', { type: 'button', className: 'ic-link' }, named(name));
  const answer = cell(...(known ? [named(shown)] : unsure));
  const line = h('tr', {}, small, head(opener), answer, h('td', { className: 'ic-number' }, number));
  line.addEventListener('click', open);
  return line;
}

// Sure answers first, and by name; then the others. What could not be read is last in any case.
const ORDERS = {
  answer: (a, b) => b.known - a.known || a.shown.localeCompare(b.shown) || ORDERS.probability(a, b),
  probability: (a, b) => b.probability - a.probability,
};

/** The table. Rows are drawn once: more are added as they come, and sorting moves them. */
function table(model, texts) {
  const drawn = []; // pairs of a row's data and its element
  const body = h('tbody');
  const heads = {};
  let [order, direction] = ['', 1];

  function update() {
    const rows = model.get('rows');
    for (let index = drawn.length; index < rows.length; index += 1) {
      const open = () => model.send({ kind: 'open', index });
      drawn.push([rows[index], row(rows[index], open, texts)]);
    }
    const compare = ([a], [b]) =>
      a.shown && b.shown ? direction * ORDERS[order](a, b) : !a.shown - !b.shown;
    const sorted = order ? [...drawn].sort(compare) : drawn;
    body.append(...sorted.map(([, element]) => element));
    drawn.forEach(([, element], index) =>
      element.setAttribute('aria-current', String(index === model.get('opened'))),
    );
  }

  function sorter(name) {
    const sort = button(texts[name], () => {
      [order, direction] = [name, order === name ? -direction : 1];
      for (const one of Object.values(heads)) one.removeAttribute('aria-sort');
      const isRising = (direction > 0) === (name === 'answer');
      heads[name].setAttribute('aria-sort', isRising ? 'ascending' : 'descending');
      update();
    }, { className: 'ic-link' });
    heads[name] = h('th', { scope: 'col' }, sort);
    return heads[name];
  }

  const names = [texts.photo, texts.file].map((name) => h('th', { scope: 'col' }, name));
  const head = h('tr', {}, ...names, sorter('answer'), sorter('probability'));
  heads.probability.className = 'ic-number';
  const aria = { label: texts.table };
  const element = h('table', { className: 'ic-table', aria }, h('thead', {}, head), body);
  const file = button(texts.csv, () => model.send({ kind: 'csv' }));
  update();
  return { nodes: [element, file], update };
}

/** Save a text as a file on the visitor's device. */
function save(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: 'text/csv;charset=utf-8' }));
  h('a', { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Let a screen reader speak the line, which is another widget's and may not be drawn yet. */
function announce(signal) {
  const find = () => {
    const line = document.querySelector('.ic-line');
    line?.setAttribute('role', 'status');
    return line;
  };
  if (find()) return;
  const observer = new MutationObserver(() => find() && observer.disconnect());
  observer.observe(document.body, { childList: true, subtree: true });
  signal.addEventListener('abort', () => observer.disconnect());
}

function render({ model, el }) {
  const texts = model.get('texts');
  const [one, several] = [h('div'), h('div', { className: 'ic-several' })];
  el.append(h('section', { className: 'ic-answer', aria: { label: texts.region } }, one, several));
  let shown; // the table
  let asked; // of the card

  async function drawOne() {
    const answer = model.get('answer');
    if (!answer.bars) return one.replaceChildren();
    const next = card(model, texts);
    // With the photo in it, or all below would jump when it is decoded.
    const photo = next.element.querySelector('img');
    await photo?.decode();
    if (answer !== model.get('answer')) return;
    one.replaceChildren(next.element);
    asked = next.update;
    // The line above may be out of sight after a click on a row of a long table.
    if (!photo) return;
    document.querySelector('.ic-line')?.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  }

  function drawSeveral() {
    if (!model.get('rows').length) shown = undefined;
    else if (shown) return shown.update();
    else shown = table(model, texts);
    several.replaceChildren(...(shown?.nodes ?? []));
  }

  // Traits that change together come one by one: draw once, when all are there.
  const frames = new Map();
  const redraw = (draw) => () => {
    cancelAnimationFrame(frames.get(draw));
    frames.set(draw, requestAnimationFrame(draw));
  };
  for (const name of ['answer', 'preview', 'heat']) model.on(`change:${name}`, redraw(drawOne));
  for (const name of ['rows', 'opened']) model.on(`change:${name}`, redraw(drawSeveral));
  model.on('change:feedback', () => asked?.());
  model.on('msg:custom', ({ kind, text }) => kind === 'csv' && save(text, texts.csv_name));
  drawOne();
  drawSeveral();
  const stop = new AbortController();
  announce(stop.signal);
  return () => {
    stop.abort();
    frames.forEach(cancelAnimationFrame);
  };
}

export default { render };
