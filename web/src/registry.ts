// The widgets that this page can show. In place of any other, `UnknownView` names it.

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
import { texts } from './config';
import { OutputModel, OutputView } from './output';
import { sanitize } from './sanitize';

/** An HTML widget whose HTML is sanitized. */
class CleanHTMLView extends string.HTMLView {
  update(): void {
    // Not HTMLView's own `update`, which does not sanitize.
    description.DescriptionView.prototype.update.call(this);
    this.content.innerHTML = sanitize(this.model.get('value'));
  }
}

/** Takes the place of a widget that this page cannot show. */
export class UnknownModel extends base.DOMWidgetModel {}

export class UnknownView extends base.DOMWidgetView {
  render(): void {
    const { module } = this.model;
    const name = this.model.name.replace(/Model$/, '');
    const values: Record<string, string> = { name, module };
    this.el.className = 'page-note';
    this.el.setAttribute('role', 'note');
    this.el.textContent = texts.unknown_widget.replace(/\{(\w+)\}/g, (_, key) => values[key]);
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
    // Without the sliders of these modules, which are many and large.
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

/** The class of a model or a view; `UnknownModel` or `UnknownView` if there is none. */
export function classOf(name: string, module: string): Class {
  const found = MODULES[module];
  if (found && Object.hasOwn(found, name)) return found[name] as Class;
  if (name.endsWith('View')) return UnknownView;
  // The style of an unknown widget has no effect, but its model must be a StyleModel.
  return name.endsWith('StyleModel') ? base.StyleModel : UnknownModel;
}
