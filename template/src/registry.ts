// The widgets that this page can show. What is not here is named in the page by `UnknownView`.

import * as base from '@jupyter-widgets/base';
import * as bool from '@jupyter-widgets/controls/lib/widget_bool';
import * as box from '@jupyter-widgets/controls/lib/widget_box';
import * as button from '@jupyter-widgets/controls/lib/widget_button';
import * as description from '@jupyter-widgets/controls/lib/widget_description';
import * as float from '@jupyter-widgets/controls/lib/widget_float';
import * as image from '@jupyter-widgets/controls/lib/widget_image';
import * as int from '@jupyter-widgets/controls/lib/widget_int';
import * as selection from '@jupyter-widgets/controls/lib/widget_selection';
import * as container from '@jupyter-widgets/controls/lib/widget_selectioncontainer';
import * as string from '@jupyter-widgets/controls/lib/widget_string';
import * as upload from '@jupyter-widgets/controls/lib/widget_upload';
import { AnyModel, AnyView } from './anywidget';
import { OutputModel, OutputView } from './output';
import { sanitize } from './sanitize';

/** An HTML widget shows its text cleaned. */
class CleanHTMLView extends string.HTMLView {
  update(): void {
    // Not HTMLView's own: that would show the text as it came, and let it act.
    description.DescriptionView.prototype.update.call(this);
    this.content.innerHTML = sanitize(this.model.get('value'));
  }
}

/** Stands for a widget whose code is not part of this page. */
export class UnknownModel extends base.DOMWidgetModel {}

export class UnknownView extends base.DOMWidgetView {
  render(): void {
    const { module } = this.model;
    const name = this.model.name.replace(/Model$/, '');
    this.el.className = 'page-note';
    this.el.setAttribute('role', 'note');
    this.el.textContent = `This page cannot show the widget “${name}” of ${module}.`;
  }
}

type Class = typeof base.WidgetModel | typeof base.WidgetView;

const MODULES: Record<string, Record<string, unknown>> = {
  '@jupyter-widgets/base': {
    LayoutModel: base.LayoutModel,
    LayoutView: base.LayoutView,
    StyleModel: base.StyleModel,
    StyleView: base.StyleView,
  },
  '@jupyter-widgets/controls': {
    ...bool,
    ...box,
    ...button,
    ...description,
    ...image,
    ...container,
    ...string,
    ...upload,
    HTMLView: CleanHTMLView,
    // Of these modules the sliders stay out, which are many and large.
    BoundedFloatTextModel: float.BoundedFloatTextModel,
    FloatProgressModel: float.FloatProgressModel,
    FloatTextModel: float.FloatTextModel,
    FloatTextView: float.FloatTextView,
    BoundedIntTextModel: int.BoundedIntTextModel,
    IntProgressModel: int.IntProgressModel,
    IntTextModel: int.IntTextModel,
    IntTextView: int.IntTextView,
    ProgressStyleModel: int.ProgressStyleModel,
    ProgressView: int.ProgressView,
    DropdownModel: selection.DropdownModel,
    DropdownView: selection.DropdownView,
    RadioButtonsModel: selection.RadioButtonsModel,
    RadioButtonsView: selection.RadioButtonsView,
    SelectModel: selection.SelectModel,
    SelectView: selection.SelectView,
    ToggleButtonsModel: selection.ToggleButtonsModel,
    ToggleButtonsStyleModel: selection.ToggleButtonsStyleModel,
    ToggleButtonsView: selection.ToggleButtonsView,
  },
  '@jupyter-widgets/output': { OutputModel, OutputView },
  anywidget: { AnyModel, AnyView },
};

/** The class of a model or a view; for one that is not known, the one that says so. */
export function classOf(name: string, module: string): Class {
  const found = MODULES[module];
  if (found && Object.hasOwn(found, name)) return found[name] as Class;
  if (name.endsWith('View')) return UnknownView;
  // The style of an unknown widget changes nothing, but it must be one.
  return name.endsWith('StyleModel') ? base.StyleModel : UnknownModel;
}
