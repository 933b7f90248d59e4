import { DOMParser, type Document, type Element, onErrorStopParsing, ParseError, XMLSerializer } from '@xmldom/xmldom';
import { LibvirtOutputInvalid } from './libvirt-errors.ts';

/** The little of XML that libvirt's documents need. Entities are never looked up. */

/** Throws LibvirtOutputInvalid. `what`: for the message. */
export function parseXml(text: string, what: string, root: string): Element {
  const element = parseDocument(text, what).documentElement;
  if (element?.tagName !== root) throw new LibvirtOutputInvalid(`${what} is no XML with ${root} at its root`);
  return element;
}

export function printXml(element: Element): string {
  return new XMLSerializer().serializeToString(element);
}

export function childrenOf(parent: Element | null, name: string): readonly Element[] {
  return [...(parent?.children ?? [])].filter(({ tagName }) => tagName === name);
}

export function childOf(parent: Element | null, ...path: readonly string[]): Element | null {
  return path.reduce<Element | null>((element, name) => childrenOf(element, name)[0] ?? null, parent);
}

/** The attribute of an element that may be missing itself; null where it is missing or empty. */
export function attributeOf(element: Element | null, name: string): string | null {
  return element?.getAttribute(name) || null;
}

export function textOf(element: Element | null): string | null {
  return element?.textContent?.trim() || null;
}

/** An element with its attributes and children; attributes that are null are left out. */
export interface XmlTree {
  readonly name: string;
  readonly attributes?: Readonly<Record<string, string | null>>;
  readonly children?: readonly (XmlTree | string)[];
}

export function buildXml(tree: XmlTree): string {
  const document = parseDocument(`<${tree.name}/>`, tree.name);
  const root = document.documentElement;
  if (root === null) throw new LibvirtOutputInvalid(`${tree.name} is no name of an element`);
  fill(document, root, tree);
  return printXml(root);
}

export function addChild(parent: Element, tree: XmlTree): Element {
  const document = parent.ownerDocument;
  if (document === null) throw new LibvirtOutputInvalid(`${tree.name}: its parent is in no document`);
  const element = document.createElement(tree.name);
  fill(document, element, tree);
  parent.appendChild(element);
  return element;
}

/** The child of that name holds this text afterwards, and is made where it is missing. */
export function setText(parent: Element, name: string, text: string): void {
  const child = childOf(parent, name) ?? addChild(parent, { name });
  child.textContent = text;
}

/** With the blanks that stood before it, so that what remains reads well. */
export function removeElement(element: Element): void {
  const { previousSibling, parentNode } = element;
  const isBlank = previousSibling?.nodeType === previousSibling?.TEXT_NODE && previousSibling?.nodeValue?.trim() === '';
  if (isBlank && previousSibling !== null) parentNode?.removeChild(previousSibling);
  parentNode?.removeChild(element);
}

function fill(document: Document, element: Element, { attributes = {}, children = [] }: XmlTree): void {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  for (const child of children) {
    if (typeof child === 'string') element.appendChild(document.createTextNode(child));
    else addChild(element, child);
  }
}

function parseDocument(text: string, what: string): Document {
  try {
    return new DOMParser({ onError: onErrorStopParsing }).parseFromString(text, 'text/xml');
  } catch (cause) {
    if (!(cause instanceof ParseError)) throw cause;
    throw new LibvirtOutputInvalid(`${what} is no XML: ${cause.message}`, { cause });
  }
}
