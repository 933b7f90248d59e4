import type { MachineState } from './machine-state.ts';
import { property, readObject } from './vim25/properties.ts';
import { booleanOf, childOf, childrenOf, childText, referenceTag, tag } from './vim25/soap-xml.ts';
import { VsphereDenied } from './vsphere-errors.ts';
import type { VsphereMachine } from './vsphere-machine.ts';
import type { VsphereSite } from './vsphere-site.ts';

/** What the account must be allowed to do with a machine; docs/operations/vsphere.md makes a role of it. */

const always = [
  'VirtualMachine.State.CreateSnapshot',
  'VirtualMachine.State.RemoveSnapshot',
  'VirtualMachine.Provisioning.DiskRandomRead',
  'VirtualMachine.Provisioning.GetVmFiles',
];
const toTrack = 'VirtualMachine.Config.ChangeTracking';
const toDecrypt = 'Cryptographer.Access';

/** What whoever creates a restored machine must be allowed to do, and on what; docs/operations/vsphere-restore.md makes a role of it. */
export const toCreate = {
  folder: [
    'VirtualMachine.Inventory.Create',
    'VirtualMachine.Config.AddExistingDisk',
    'VirtualMachine.Config.AdvancedConfig',
  ],
  pool: ['Resource.AssignVMToPool'],
  datastore: ['Datastore.AllocateSpace', 'Datastore.Browse', 'Datastore.FileManagement'],
  network: ['Network.Assign'],
} as const;

export function privilegesFor({ tracking }: VsphereMachine, state: MachineState): readonly string[] {
  return [
    ...always,
    ...(tracking === 'enable' && state.tracking === 'off' ? [toTrack] : []),
    ...(state.encrypted || state.disks.some((disk) => disk.encrypted) ? [toDecrypt] : []),
  ];
}

/** UEFI variables are a file there, and so are disks that are not read by VDDK. */
export const onDatastores: readonly string[] = ['Datastore.Browse', 'Datastore.FileManagement'];

/** On `ref`. Those that the account lacks; null where the server does not tell. */
export async function missingPrivileges(
  { session, ref }: Pick<VsphereSite, 'session' | 'ref'>,
  privileges: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[] | null> {
  const { authorizationManager, sessionManager } = await session.content(signal);
  const current = property(await readObject(session, sessionManager, ['currentSession'], signal), 'currentSession');
  const key = childText(current, 'key');
  if (authorizationManager === null || key === null) return null;
  const parameters = [
    referenceTag('entity', ref),
    tag('sessionId', key),
    ...privileges.map((privilege) => tag('privId', privilege)),
  ];
  const options = { repeatable: true };
  const asked = session.call('HasPrivilegeOnEntities', authorizationManager, parameters, signal, options);
  const response = await asked.catch((error: unknown) => {
    // On what it may not even see, it may nothing.
    if (error instanceof VsphereDenied) return null;
    throw error;
  });
  const answers = childrenOf(childOf(response, 'returnval'), 'privAvailability');
  const granted = answers.filter((each) => booleanOf(childOf(each, 'isGranted')) === true);
  const names = new Set(granted.map((each) => childText(each, 'privId')));
  return privileges.filter((privilege) => !names.has(privilege));
}
