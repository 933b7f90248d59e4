import type { Element } from '@xmldom/xmldom';
import { SourceNotFound } from '../errors.ts';
import { disksOf, hasTpm, isOn, settingOf, type VsphereDisk } from './machine-disks.ts';
import { listed, type ManagedObject, property, readObject } from './vim25/properties.ts';
import {
  booleanTag,
  childOf,
  childrenOf,
  childText,
  dateOf,
  type Reference,
  referenceOf,
  tag,
  textOf,
} from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';
import type { VsphereMachine } from './vsphere-machine.ts';

/** A machine as vSphere has it now. */
export interface MachineState {
  readonly ref: Reference;
  readonly name: string;
  readonly instanceUuid: string | null;
  readonly isTemplate: boolean;
  readonly powerState: string;
  /** `connected`, or why its host can't be asked. */
  readonly connectionState: string;
  readonly host: Reference | null;
  readonly hardwareVersion: string;
  readonly firmware: string;
  readonly hasTpm: boolean;
  readonly encrypted: boolean;
  readonly tools: string;
  readonly tracking: 'on' | 'off' | 'impossible';
  readonly needsConsolidation: boolean;
  readonly disks: readonly VsphereDisk[];
  readonly snapshots: readonly MachineSnapshotEntry[];
  readonly currentSnapshot: Reference | null;
  readonly runningTasks: readonly Reference[];
  readonly datastores: readonly Reference[];
}

export interface MachineSnapshotEntry {
  readonly ref: Reference;
  readonly name: string;
  readonly description: string;
  readonly createdAt: Date | null;
  /** vSphere's own word on it: without Tools it takes another one than was asked for, and says nothing. */
  readonly quiesced: boolean;
  /** How many snapshots it stands on, itself included. */
  readonly depth: number;
}

export const machinePaths: readonly string[] = [
  ...['name', 'parent', 'resourcePool', 'config.instanceUuid', 'config.template', 'config.changeTrackingEnabled'],
  ...['config.version', 'config.firmware', 'config.hardware.device', 'config.extraConfig', 'config.keyId'],
  ...['capability.changeTrackingSupported', 'runtime.powerState', 'runtime.connectionState'],
  ...['runtime.consolidationNeeded', 'runtime.host', 'snapshot', 'recentTask', 'datastore', 'guest.toolsRunningStatus'],
];

/** Throws SourceNotFound. */
export async function findMachine(
  session: VimSession,
  machine: VsphereMachine,
  signal: AbortSignal,
): Promise<Reference> {
  const { searchIndex } = await session.content(signal);
  const { at } = machine;
  const response =
    'path' in at
      ? await session.call('FindByInventoryPath', searchIndex, [tag('inventoryPath', at.path)], signal, {
          repeatable: true,
        })
      : await session.call(
          'FindByUuid',
          searchIndex,
          [tag('uuid', at.instanceUuid), booleanTag('vmSearch', true), booleanTag('instanceUuid', true)],
          signal,
          { repeatable: true },
        );
  const found = referenceOf(childOf(response, 'returnval'));
  if (found?.type === 'VirtualMachine') return found;
  const what = 'path' in at ? `machine at ${at.path}` : `machine with the instance UUID ${at.instanceUuid}`;
  throw new SourceNotFound(
    `machine ${machine.name}: ${session.where} knows no ${what}: see failkit machines --source ${machine.server.name}`,
  );
}

export async function readMachine(session: VimSession, ref: Reference, signal: AbortSignal): Promise<MachineState> {
  return machineState(await readObject(session, ref, machinePaths, signal));
}

export function machineState(object: ManagedObject): MachineState {
  const at = (path: string): Element | null => property(object, path);
  const devices = listed(at('config.hardware.device'));
  const settings = listed(at('config.extraConfig'));
  return {
    ref: object.ref,
    name: decodedName(textOf(at('name')) ?? object.ref.id),
    instanceUuid: textOf(at('config.instanceUuid')),
    isTemplate: isOn(at('config.template')),
    powerState: textOf(at('runtime.powerState')) ?? 'unknown',
    connectionState: textOf(at('runtime.connectionState')) ?? 'unknown',
    host: referenceOf(at('runtime.host')),
    hardwareVersion: textOf(at('config.version')) ?? 'unknown',
    firmware: textOf(at('config.firmware')) ?? 'bios',
    hasTpm: hasTpm(devices),
    encrypted: at('config.keyId') !== null,
    tools: textOf(at('guest.toolsRunningStatus')) ?? 'unknown',
    tracking: trackingOf(at, settings),
    needsConsolidation: isOn(at('runtime.consolidationNeeded')),
    disks: disksOf(devices),
    snapshots: snapshotsOf(at('snapshot')),
    currentSnapshot: referenceOf(childOf(at('snapshot'), 'currentSnapshot')),
    runningTasks: listed(at('recentTask')).flatMap((task) => referenceOf(task) ?? []),
    datastores: listed(at('datastore')).flatMap((store) => referenceOf(store) ?? []),
  };
}

function trackingOf(at: (path: string) => Element | null, settings: readonly Element[]): MachineState['tracking'] {
  if (isOn(at('config.changeTrackingEnabled')) || /^(true|1)$/i.test(settingOf(settings, 'ctkEnabled') ?? ''))
    return 'on';
  const version = Number(/^vmx-0*(\d+)$/.exec(textOf(at('config.version')) ?? '')?.[1] ?? 99);
  return textOf(at('capability.changeTrackingSupported')) === 'false' || version < hardwareWithTracking
    ? 'impossible'
    : 'off';
}

const hardwareWithTracking = 7;
const treeDepthMax = 100;

function snapshotsOf(info: Element | null): readonly MachineSnapshotEntry[] {
  const walk = (trees: readonly Element[], depth: number): readonly MachineSnapshotEntry[] =>
    depth > treeDepthMax
      ? []
      : trees.flatMap((tree) => {
          const ref = referenceOf(childOf(tree, 'snapshot'));
          const below = walk(childrenOf(tree, 'childSnapshotList'), depth + 1);
          if (ref === null) return below;
          const entry = {
            ref,
            name: childText(tree, 'name') ?? '',
            description: childText(tree, 'description') ?? '',
            createdAt: dateOf(childOf(tree, 'createTime')),
            quiesced: isOn(childOf(tree, 'quiesced')),
            depth,
          };
          return [entry, ...below];
        });
  return walk(childrenOf(info, 'rootSnapshotList'), 1);
}

/** vSphere keeps the three characters that its paths are made of in another form. */
function decodedName(name: string): string {
  return name.replaceAll(/%(2f|5c|25)/gi, (code) => decodeURIComponent(code));
}
