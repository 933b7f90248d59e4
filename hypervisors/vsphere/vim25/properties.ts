import type { Element } from '@xmldom/xmldom';
import { VsphereAnswerInvalid } from '../vsphere-errors.ts';
import { returnedBy } from './soap.ts';
import {
  booleanTag,
  childOf,
  childrenOf,
  childText,
  type Reference,
  referenceOf,
  referenceTag,
  tag,
  typedTag,
  type Xml,
} from './soap-xml.ts';
import type { VimSession } from './vim-session.ts';

/** Reading managed objects. A property that is unset, or that this account may not read, is not there: that is no error. */

export interface ManagedObject {
  readonly ref: Reference;
  /** The value of each property, by its path. */
  readonly properties: ReadonlyMap<string, Element>;
  /** Those that were refused. */
  readonly missing: readonly string[];
}

/** By its path; null where it is not there. */
export function property({ properties }: ManagedObject, path: string): Element | null {
  return properties.get(path) ?? null;
}

/** The elements of a list, whose own names vary with their type (`ArrayOfManagedObjectReference` and its kin). */
export function listed(value: Element | null): readonly Element[] {
  return [...(value?.children ?? [])];
}

/** Of one answer: a machine with all its devices and settings takes a megabyte of memory while it is looked at. */
const pageObjectsMax = 25;
/** A server that never ends its list is not believed. */
const pagesMax = 10_000;

/** The object, or null where it does not exist any more. */
export async function readObject(
  session: VimSession,
  ref: Reference,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<ManagedObject> {
  const objectSet = tag('objectSet', [referenceTag('obj', ref), booleanTag('skip', false)]);
  for await (const object of retrieve(session, [propSet(ref.type, paths)], [objectSet], signal)) return object;
  throw new VsphereAnswerInvalid(`${session.where} says nothing about ${ref.type} ${ref.id}`);
}

export async function* readObjects(
  session: VimSession,
  refs: readonly Reference[],
  paths: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<ManagedObject> {
  const types = [...new Set(refs.map(({ type }) => type))];
  if (types.length === 0) return;
  const objectSets = refs.map((ref) => tag('objectSet', [referenceTag('obj', ref), booleanTag('skip', false)]));
  const propSets = types.map((type) => propSet(type, paths));
  yield* retrieve(session, propSets, objectSets, signal);
}

/** Every object of these types in the inventory. `paths`: by type; each must exist for it. */
export async function* readInventory(
  session: VimSession,
  paths: Readonly<Record<string, readonly string[]>>,
  signal: AbortSignal,
): AsyncGenerator<ManagedObject> {
  const { viewManager, rootFolder } = await session.content(signal);
  const types = Object.keys(paths);
  const created = await session.call(
    'CreateContainerView',
    viewManager,
    [referenceTag('container', rootFolder), ...types.map((type) => tag('type', type)), booleanTag('recursive', true)],
    signal,
  );
  const view = referenceOf(returnedBy(created, session.where));
  if (view === null) throw new VsphereAnswerInvalid(`${session.where} made no view of its inventory`);
  try {
    const select = typedTag('selectSet', 'TraversalSpec', [
      tag('name', 'machines'),
      tag('type', 'ContainerView'),
      tag('path', 'view'),
      booleanTag('skip', false),
    ]);
    const objectSet = tag('objectSet', [referenceTag('obj', view), booleanTag('skip', true), select]);
    const propSets = types.map((type) => propSet(type, paths[type] ?? []));
    yield* retrieve(session, propSets, [objectSet], signal);
  } finally {
    // Views live as long as the session: a service would pile them up. Whatever became of the reading, this is tried.
    await session.call('DestroyView', view, [], signal).catch(() => undefined);
  }
}

function propSet(type: string, paths: readonly string[]): Xml {
  return tag('propSet', [tag('type', type), booleanTag('all', false), ...paths.map((path) => tag('pathSet', path))]);
}

async function* retrieve(
  session: VimSession,
  propSets: readonly Xml[],
  objectSets: readonly Xml[],
  signal: AbortSignal,
): AsyncGenerator<ManagedObject> {
  const { propertyCollector } = await session.content(signal);
  const options = tag('options', [tag('maxObjects', String(pageObjectsMax))]);
  const asked = [tag('specSet', [...propSets, ...objectSets]), options];
  let response = await session.call('RetrievePropertiesEx', propertyCollector, asked, signal, { repeatable: true });
  for (let page = 0; page < pagesMax; page++) {
    const result = childOf(response, 'returnval');
    for (const object of childrenOf(result, 'objects')) yield managedObject(object, session.where);
    const token = childText(result, 'token');
    if (token === null) return;
    response = await session.call('ContinueRetrievePropertiesEx', propertyCollector, [tag('token', token)], signal);
  }
  throw new VsphereAnswerInvalid(`${session.where} never ends its list of objects`);
}

function managedObject(object: Element, where: string): ManagedObject {
  const ref = referenceOf(childOf(object, 'obj'));
  if (ref === null) throw new VsphereAnswerInvalid(`${where} lists an object without a name`);
  const properties = new Map<string, Element>();
  for (const set of childrenOf(object, 'propSet')) {
    const [name, value] = [childText(set, 'name'), childOf(set, 'val')];
    if (name !== null && value !== null) properties.set(name, value);
  }
  const missing = childrenOf(object, 'missingSet').flatMap((each) => childText(each, 'path') ?? []);
  return { ref, properties, missing };
}
