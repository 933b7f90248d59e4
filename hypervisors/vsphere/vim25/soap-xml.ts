import { DOMParser, type Document, type Element, onErrorStopParsing, ParseError, XMLSerializer } from '@xmldom/xmldom';
import { VsphereAnswerInvalid, VsphereRequestInvalid } from '../vsphere-errors.ts';

/**
 * XML as vSphere speaks it. Texts stay texts until somebody asks for a number, for a machine may be called 007 and a change id may look
 * like 52e10. Types are told by namespace, never by prefix: each release writes another one.
 */

const vimNamespace = 'urn:vim25';
const instanceNamespace = 'http://www.w3.org/2001/XMLSchema-instance';

/** A managed object of the server: its type and the name the server knows it by. */
export interface Reference {
  readonly type: string;
  readonly id: string;
}

/** Throws VsphereAnswerInvalid. `what`: for the message. Entities are never looked up, and a document type is refused. */
export function parseSoapXml(text: string, what: string): Element {
  const document = parseDocument(text, what);
  const root = document.documentElement;
  if (document.doctype !== null || root === null)
    throw new VsphereAnswerInvalid(`${what} is no SOAP: it has ${root === null ? 'no element' : 'a document type'}`);
  return root;
}

function parseDocument(text: string, what: string): Document {
  try {
    return new DOMParser({ onError: onErrorStopParsing }).parseFromString(text, 'text/xml');
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause;
    throw new VsphereAnswerInvalid(`${what} is no XML: ${cause.message}`, { cause });
  }
}

export function printXml(element: Element): string {
  return new XMLSerializer().serializeToString(element);
}

/** By local name. */
export function childrenOf(parent: Element | null, name: string): readonly Element[] {
  return [...(parent?.children ?? [])].filter(({ localName }) => localName === name);
}

export function childOf(parent: Element | null, ...path: readonly string[]): Element | null {
  return path.reduce<Element | null>((element, name) => childrenOf(element, name)[0] ?? null, parent);
}

/** As it stands, blanks included; null where the element is missing. */
export function textOf(element: Element | null): string | null {
  return element?.textContent ?? null;
}

export function childText(parent: Element | null, ...path: readonly string[]): string | null {
  return textOf(childOf(parent, ...path));
}

/** The type that `xsi:type` names, in whatever prefix; null where the element says none. */
export function typeOf(element: Element | null): string | null {
  const named = element?.getAttributeNS(instanceNamespace, 'type') || null;
  return named === null ? null : named.slice(named.indexOf(':') + 1).trim();
}

export function isOfVim(element: Element): boolean {
  return element.namespaceURI === vimNamespace;
}

/** The server's `type` attribute is not `xsi:type`, which may stand before or after it. */
export function referenceOf(element: Element | null): Reference | null {
  const type = element?.getAttribute('type') || null;
  const id = textOf(element);
  return type === null || id === null || id === '' ? null : { type, id };
}

const integer = /^[+-]?\d{1,19}$/;

/** Throws VsphereAnswerInvalid for what is no integer, and for one that a double can't hold. */
export function integerOf(element: Element | null): number | null {
  const text = textOf(element)?.trim() ?? null;
  if (text === null) return null;
  const value = integer.test(text) ? BigInt(text) : null;
  if (value === null || value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER)
    throw new VsphereAnswerInvalid(`${element?.localName} is ${JSON.stringify(text.slice(0, 40))}: no integer of use`);
  return Number(value);
}

/** Of room that is left. File systems on the network may say 8 EiB, which no double holds: then it is the most that one does. */
export function roomOf(element: Element | null): number | null {
  const text = textOf(element)?.trim() ?? '';
  return /^\d{1,19}$/.test(text) && BigInt(text) > Number.MAX_SAFE_INTEGER
    ? Number.MAX_SAFE_INTEGER
    : integerOf(element);
}

export function booleanOf(element: Element | null): boolean | null {
  const text = textOf(element)?.trim() ?? null;
  if (text === null) return null;
  if (text === 'true' || text === '1') return true;
  if (text === 'false' || text === '0') return false;
  throw new VsphereAnswerInvalid(
    `${element?.localName} is ${JSON.stringify(text.slice(0, 40))}: neither true nor false`,
  );
}

export function dateOf(element: Element | null): Date | null {
  const text = textOf(element)?.trim() ?? null;
  if (text === null) return null;
  const date = new Date(text);
  if (!/^\d{4}-\d\d-\d\dT/.test(text) || Number.isNaN(date.getTime()))
    throw new VsphereAnswerInvalid(`${element?.localName} is ${JSON.stringify(text.slice(0, 40))}: no time`);
  return date;
}

/** What is to be sent: elements in the order that the WSDL gives them, each built by `tag`. */
export type Xml = string & { readonly made: unique symbol };

/** `content`: a text, which is escaped, or elements. */
export function tag(
  name: string,
  content: string | readonly Xml[],
  attributes: Readonly<Record<string, string>> = {},
): Xml {
  const written = Object.entries(attributes).map(([key, value]) => ` ${key}="${escaped(value)}"`);
  const inside = typeof content === 'string' ? escaped(content) : content.join('');
  return made(`<${name}${written.join('')}>${inside}</${name}>`);
}

export function referenceTag(name: string, { type, id }: Reference): Xml {
  return tag(name, id, { type });
}

/** An element whose schema type is abstract, so that it has to name its own. */
export function typedTag(name: string, type: string, content: readonly Xml[]): Xml {
  return tag(name, content, { 'xsi:type': type });
}

export function booleanTag(name: string, value: boolean): Xml {
  return tag(name, String(value));
}

function made(text: string): Xml {
  return text as Xml;
}

/** What XML 1.0 can't hold, however it is written. */
const unwritable = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u;
const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  '\r': '&#13;',
  '\n': '&#10;',
  '\t': '&#9;',
};

function escaped(text: string): string {
  if (unwritable.test(text))
    throw new VsphereRequestInvalid('a name or password holds a control character, which XML has no way to write');
  return text.replaceAll(/[&<>"'\r\n\t]/g, (character) => entities[character] ?? character);
}
