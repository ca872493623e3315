// The drop zone: photos by drag and drop, paste, camera, file chooser and examples. A photo is
// shrunk here before it is sent. All texts come from Python (texts.py).

const LONG_SIDE = 1024; // pixels, more than the model looks at
const SMALL = 120_000; // bytes, half a second at 2 Mbit/s; a file of at most so many stays as it is
const QUALITIES = [0.92, 0.8, 0.65]; // of JPEG; the first that gets below SMALL, or the last
const SLOW = 20_000; // milliseconds without an answer until that is said

/** Make an element: h('p', {className: 'a'}, 'text'). Text is never read as HTML. */
function h(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** Draw a picture onto white, no longer than LONG_SIDE. */
function draw(source, width, height) {
  const scale = Math.min(1, LONG_SIDE / Math.max(width, height));
  const canvas = h('canvas', {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  });
  const pen = canvas.getContext('2d', { alpha: false });
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function encode(canvas) {
  let blob;
  for (const quality of QUALITIES) {
    blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', quality));
    if (!blob || blob.size <= SMALL) break;
  }
  return blob;
}

/** Shrink a photo; null where the browser cannot decode it (HEIC in most). */
async function shrink(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' });
  } catch {
    return null;
  }
  try {
    return await encode(draw(bitmap, bitmap.width, bitmap.height));
  } finally {
    bitmap.close();
  }
}

/** What travels for a file; null if it is too large. On a page without a kernel, the file itself. */
async function prepare(file, model) {
  const shrinks = model.get('shrinks') !== false;
  let best = file;
  if (shrinks && file.size > SMALL) {
    const small = await shrink(file);
    if (small && small.size < file.size) best = small;
  }
  if (best.size > model.get('max_bytes')) return null;
  return shrinks ? best.arrayBuffer() : best;
}

/** The line that shows that something is going on; it waits a moment, so as not to flicker. */
function progressLine() {
  const bar = h('progress', { className: 'ic-bar' });
  const words = h('span');
  const note = h('span', { className: 'ic-note' });
  const element = h('div', { className: 'ic-work' }, bar, words);
  const box = h('div', { className: 'ic-status' }, element, note);
  box.setAttribute('role', 'status');
  element.hidden = true;
  let timer;
  return {
    element: box,
    show(text, index, count) {
      words.textContent = text;
      bar.hidden = false;
      if (count > 1) Object.assign(bar, { max: count, value: index });
      else bar.removeAttribute('value');
      timer ??= setTimeout(() => (element.hidden = false), 200);
    },
    say: (text) => (note.textContent = text),
    hide() {
      clearTimeout(timer);
      timer = undefined;
      element.hidden = true;
      words.textContent = '';
    },
  };
}

/** Sends photos one after the other: the next is prepared while the last is looked at. */
function sender(model, work, texts) {
  let line = Promise.resolve(); // batches wait for each other
  let done = () => {};
  model.on('msg:custom', ({ kind, text }) => {
    if (kind === 'done') done();
    if (kind === 'say') work.say(text);
  });

  const answered = () =>
    new Promise((resolve) => {
      const timer = setTimeout(() => work.say(texts.slow), SLOW);
      done = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const queue = (job) => {
    line = line.then(job).finally(() => work.hide());
    return line;
  };

  return {
    photos: (files, note = '') =>
      queue(async () => {
        const count = files.length;
        let last = Promise.resolve();
        work.say(note);
        for (const [index, file] of files.entries()) {
          const text = count > 1 ? fill(texts.counting, { index: index + 1, count }) : '';
          work.show(text || texts.preparing, index, count);
          // What cannot be read, such as a folder, is sent as what is no picture.
          const content = await prepare(file, model).catch(() => new ArrayBuffer(1));
          await last;
          work.show(text || texts.looking, index, count);
          last = answered();
          const message = { kind: 'photo', name: file.name ?? '', index, count };
          model.send(message, undefined, content ? [content] : []);
        }
        await last;
        work.say(note);
      }),
    example: (index) =>
      queue(async () => {
        work.say('');
        work.show(texts.looking);
        const last = answered();
        model.send({ kind: 'example', index });
        await last;
        work.say('');
      }),
  };
}

/** A camera in the page. With `live` its frames are sent too, each when the last
 * is answered. */
function camera(model, texts, take, say) {
  const live = model.get('live');
  const video = h('video', { muted: true, playsInline: true, autoplay: true });
  video.setAttribute('aria-label', texts.viewfinder);
  const shoot = h('button', { className: 'ic-button ic-main', type: 'button' }, texts.shoot);
  const close = h('button', { className: 'ic-button', type: 'button' }, texts.close);
  const element = h('div', { className: 'ic-camera' }, video, h('div', { className: 'ic-ways' }, shoot, close));
  element.hidden = true;
  let stream;
  let opener; // the button, from its click until the camera is closed

  function stop() {
    if (!stream) return;
    for (const track of stream.getTracks()) track.stop();
    stream = video.srcObject = null;
    element.hidden = true;
    opener.focus();
    opener = undefined;
    if (live) model.send({ kind: 'closed' });
  }
  async function follow() {
    const frame = stream && (await createImageBitmap(video).catch(() => null));
    if (!stream) return;
    if (frame) model.send({ kind: 'frame' }, undefined, [frame]);
    else requestAnimationFrame(follow); // the camera has just begun
  }
  async function open(button) {
    if (opener) return; // the browser still asks, or the camera is open
    opener = button;
    say('');
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: 'environment', width: { ideal: 1280 } },
      });
    } catch (error) {
      opener = undefined;
      say(error.name === 'NotAllowedError' ? texts.camera_denied : texts.camera_missing);
      return;
    }
    video.srcObject = stream;
    element.hidden = false;
    shoot.focus();
    if (live) follow();
  }
  shoot.addEventListener('click', async () => {
    if (!video.videoWidth) return;
    const photo = await encode(draw(video, video.videoWidth, video.videoHeight));
    stop();
    take([new File([photo], 'camera.jpg', { type: 'image/jpeg' })]);
  });
  close.addEventListener('click', stop);
  model.on('msg:custom', ({ kind }) => kind === 'next' && requestAnimationFrame(follow));
  element.addEventListener('keydown', (event) => event.key === 'Escape' && stop());
  return { element, open, stop };
}

function chooser(accept, attribute, value, take) {
  const input = h('input', { type: 'file', accept, hidden: true });
  input.setAttribute(attribute, value);
  input.addEventListener('change', () => {
    take([...input.files]);
    input.value = ''; // or the same file could not be chosen again
  });
  return input;
}

function exampleButton({ name, thumbnail }, text, onClick) {
  const address = URL.createObjectURL(new Blob([thumbnail], { type: 'image/jpeg' }));
  const picture = h('img', { src: address, alt: '' });
  picture.addEventListener('load', () => URL.revokeObjectURL(address), { once: true });
  const button = h('button', { className: 'ic-example', type: 'button', title: name }, picture);
  button.setAttribute('aria-label', fill(text, { name }));
  button.addEventListener('click', onClick);
  return button;
}

const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
/** Whether only the address of a picture has come along, or the HTML around it. */
const isFromWeb = (data) =>
  /^\s*(https?|data|blob):\S+\s*$/.test(data.getData('text/plain')) ||
  data.types.includes('text/uri-list') ||
  data.getData('text/html').includes('<img');
const isEditor = (node) => node?.closest?.('input, textarea, [contenteditable], .cm-editor');

/** Take what is dropped or pasted anywhere; in JupyterLab, whose own files are dropped too, only
 * what is dropped onto the zone. */
function listen(zone, take, say, texts, signal) {
  const on = (target, type, act) => target.addEventListener(type, act, { signal });
  const target = document.querySelector('.jp-LabShell') ? zone : document;
  const light = (isOn) => zone.classList.toggle('ic-over', isOn);
  // Where the page has just scrolled under the pointer, a drop follows the first of the two at once.
  for (const type of ['dragenter', 'dragover']) {
    on(target, type, (event) => {
      event.preventDefault(); // or the browser would leave the page and open the file
      light(isFile(event));
    });
  }
  on(target, 'dragleave', (event) => event.relatedTarget || light(false));
  on(target, 'drop', (event) => {
    event.preventDefault();
    light(false);
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
    else say(isFromWeb(event.dataTransfer) ? texts.from_web : texts.no_file);
  });
  on(document, 'paste', (event) => {
    const data = event.clipboardData;
    if (!data || isEditor(event.target)) return;
    const files = [...data.files].filter((file) => file.type.startsWith('image/'));
    if (files.length) take(files);
    else if (isFromWeb(data)) say(texts.from_web);
    else return;
    event.preventDefault();
  });
}

function render({ model, el }) {
  const texts = model.get('texts');
  const work = progressLine();
  const send = sender(model, work, texts);
  const most = model.get('max_photos');
  const take = (files) => {
    viewfinder.stop();
    const note = files.length > most ? texts.too_many : '';
    if (files.length) send.photos(files.slice(0, most), note);
  };

  const accept = model.get('accept');
  const files = chooser(accept, 'multiple', '', take);
  const phone = chooser('image/*', 'capture', 'environment', take);
  const choose = h('button', { className: 'ic-button ic-main', type: 'button' });
  // The style sheet shows the one or the other.
  choose.append(h('span', { className: 'ic-first' }, texts.choose));
  choose.append(h('span', { className: 'ic-next' }, texts.another));
  choose.addEventListener('click', () => files.click());
  const ways = h('div', { className: 'ic-ways' }, choose);

  const viewfinder = camera(model, texts, take, work.say);
  const isPhone = matchMedia('(pointer: coarse)').matches;
  // A phone has a camera of its own, which the file chooser opens.
  const hasOwn = isPhone && !(model.get('live') && navigator.mediaDevices);
  if (isPhone || navigator.mediaDevices) {
    const shoot = h('button', { className: 'ic-button', type: 'button' }, texts.camera);
    shoot.addEventListener('click', () => (hasOwn ? phone.click() : viewfinder.open(shoot)));
    ways.append(shoot);
  }

  // A phone has nothing to drop or paste; its buttons say enough.
  const invite = h('p', { className: 'ic-invite', hidden: isPhone }, texts.invite);
  const zone = h('section', { className: 'ic-zone' }, invite, ways);
  zone.setAttribute('aria-label', texts.region);

  const examples = model.get('examples');
  if (examples.length) {
    const invitation = examples.length > 1 ? texts.examples : texts.sole_example;
    const row = h('div', { className: 'ic-examples' }, h('span', {}, invitation));
    row.setAttribute('role', 'group');
    row.setAttribute('aria-label', invitation);
    row.append(
      ...examples.map((one, index) => exampleButton(one, texts.example, () => send.example(index))),
    );
    zone.append(row);
  }
  const privacy = h('p', { className: 'ic-privacy' }, texts.privacy);
  zone.append(privacy, viewfinder.element, work.element, files, phone);
  el.append(zone);

  const stop = new AbortController();
  listen(zone, take, work.say, texts, stop.signal);
  return () => {
    stop.abort();
    viewfinder.stop();
  };
}

export default { render };
