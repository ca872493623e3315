// The page of the static site: the widgets of Voilà's page, answered here instead of by a kernel.

import { Answers } from './answers';
import { Classifier } from './classifier';
import { config } from './config';
import { keepFiles } from './offline';
import { Photos } from './photos';
import { statusLines } from './status';
import type { Widget } from './widget';

const part = (id: string): HTMLElement => document.getElementById(id) as HTMLElement;

/** Draw a widget with its front-end module. */
async function draw(name: string, model: Widget<never>, el: HTMLElement): Promise<void> {
  const module = await import(new URL(name, document.baseURI).href);
  module.default.render({ model, el });
}

async function start(): Promise<void> {
  const line = document.querySelector('.ic-line') as HTMLElement;
  const showLine = (text: string) => (line.textContent = text);
  const status = statusLines(part('status'), () => classifier.start());
  const classifier = new Classifier({
    progress: status.progress,
    ready() {
      status.ready();
      photos.start();
      // Only now, or its files would be loaded before the model.
      keepFiles(status.newVersion).catch(() => {});
    },
    failed: status.failed,
  });
  const answers = new Answers(showLine);
  const photos = new Photos(classifier, answers);
  const { dropzone, answer } = config.modules;
  try {
    await Promise.all([
      draw(answer, answers.widget, part('answer')),
      draw(dropzone, photos.widget, part('drop')),
    ]);
  } catch (error) {
    console.warn(error);
    showLine(config.texts.incomplete);
    return;
  }
  classifier.start();
}

void start();
