// The answer: bars, the photo and where the model looked, or a table of several photos. Python
// holds all of it as traits; names and labels are shown as text, never read as HTML.

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

/** An image of bytes; its address is given back as soon as it is shown. */
function image(bytes, type, properties) {
  const address = URL.createObjectURL(new Blob([bytes], { type }));
  const element = h('img', properties);
  element.addEventListener('load', () => URL.revokeObjectURL(address), { once: true });
  element.src = address;
  return element;
}

const hasBytes = (bytes) => bytes?.byteLength > 0;

function bars({ bars: classes, rest, known }, texts) {
  const list = h('ol', { className: 'ic-bars', aria: { label: texts.bars } });
  for (const [label, probability, percent] of classes) {
    const part = h('span', { className: 'ic-part' });
    part.style.width = `${100 * probability}%`;
    const track = h('span', { className: 'ic-track', aria: { hidden: 'true' } }, part);
    const name = h('span', { className: 'ic-label' }, label);
    list.append(h('li', {}, name, h('span', { className: 'ic-percent' }, percent), track));
  }
  list.classList.toggle('ic-unsure', !known);
  const more = h('p', { className: 'ic-quiet' }, fill(texts.more, { count: rest }));
  return rest > 0 ? [list, more] : [list];
}

/** The photo with the button that lays the heat map over it. */
function photo(model, texts) {
  const frame = h('div', { className: 'ic-frame' });
  const legend = h('p', { className: 'ic-quiet' });
  const figure = h('figure', { className: 'ic-figure' }, frame);
  if (!hasBytes(model.get('preview'))) return { figure, update() {} };
  frame.append(image(model.get('preview'), 'image/jpeg', { alt: texts.preview }));
  let isWanted = false;
  const toggle = button(texts.heat, () => {
    isWanted = !isWanted;
    if (isWanted && !hasBytes(model.get('heat'))) model.send({ kind: 'heat' });
    update();
  });

  function update() {
    const heat = model.get('heat');
    frame.querySelector('.ic-heat')?.remove();
    const isShown = isWanted && hasBytes(heat);
    if (isShown) {
      const over = image(heat, 'image/png', { className: 'ic-heat', alt: '' });
      const [left, top, width, height] = model.get('heat_box').map((part) => `${100 * part}%`);
      Object.assign(over.style, { left, top, width, height });
      frame.append(over);
    }
    const isBusy = isWanted && !isShown;
    toggle.textContent = isBusy ? texts.looking : isShown ? texts.no_heat : texts.heat;
    toggle.setAttribute('aria-pressed', String(isWanted));
    toggle.hidden = !model.get('can_explain');
    legend.textContent = isShown ? fill(texts.heat_legend, model.get('answer')) : '';
  }
  figure.append(h('figcaption', {}, toggle, legend));
  legend.setAttribute('role', 'status');
  update();
  return { figure, update };
}

function row({ name, problem, thumbnail, shown, percent, known }, texts) {
  const cell = (text, properties) => h('td', properties, text);
  const small = thumbnail ? image(thumbnail, 'image/jpeg', { alt: '' }) : '';
  const head = h('th', { scope: 'row', className: 'ic-name' }, name);
  if (problem) {
    const reason = cell(problem, { colSpan: 2, className: 'ic-problem' });
    return h('tr', {}, cell(small), head, reason);
  }
  const answer = known ? shown : fill(texts.unsure, { label: shown });
  return h('tr', {}, cell(small), head, cell(answer), cell(percent, { className: 'ic-percent' }));
}

function table(rows, texts) {
  const titles = [texts.photo, texts.file, texts.answer, texts.probability];
  const head = h('tr', {}, ...titles.map((title) => h('th', { scope: 'col' }, title)));
  const caption = h('caption', {}, texts.table);
  const body = h('tbody', {}, ...rows.map((one) => row(one, texts)));
  return h('table', { className: 'ic-table' }, caption, h('thead', {}, head), body);
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
  const section = h('section', { className: 'ic-answer', aria: { label: texts.region } });
  el.append(section);
  let shown = { update() {} };

  const clear = () => {
    model.send({ kind: 'clear' });
    // The button goes away with the answer: the keyboard goes on where the next photo begins.
    document.querySelector('.ic-drop .ic-main, .ic-upload')?.focus();
  };

  function draw() {
    const { answer, rows } = { answer: model.get('answer'), rows: model.get('rows') };
    const over = button(texts.clear, clear);
    section.replaceChildren();
    if (answer.bars) {
      shown = photo(model, texts);
      const headline = h('h3', {}, answer.headline);
      const side = h('div', { className: 'ic-side' }, headline, ...bars(answer, texts), over);
      section.append(h('div', { className: 'ic-card' }, shown.figure, side));
    } else if (rows.length) {
      const file = button(texts.csv, () => model.send({ kind: 'csv' }));
      const wide = h('div', { className: 'ic-scroll' }, table(rows, texts));
      section.append(wide, h('div', { className: 'ic-ways' }, file, over));
    }
    section.hidden = !section.childElementCount;
    if (!section.hidden) section.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  }

  // Traits that change together come one by one: draw once, when all are there.
  let frame;
  const redraw = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  model.on('change:answer', redraw);
  model.on('change:preview', redraw);
  model.on('change:rows', redraw);
  model.on('change:heat', () => shown.update());
  model.on('change:can_explain', () => shown.update());
  model.on('change:busy', () => section.setAttribute('aria-busy', String(model.get('busy'))));
  model.on('msg:custom', ({ kind, text }) => kind === 'csv' && save(text, texts.csv_name));
  draw();
  const stop = new AbortController();
  announce(stop.signal);
  return () => {
    stop.abort();
    cancelAnimationFrame(frame);
  };
}

export default { render };
