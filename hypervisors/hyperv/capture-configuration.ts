import type { Attachment } from '../hypervisor.ts';
import type { HypervState } from './hyperv-calls.ts';

/** What a machine is besides its disks: for people who build it anew, and for tools that do. */

const configurationName = 'hyperv-machine.json';
const settingsName = 'hyperv-settings.json';

/** `documents`: Hyper-V's own settings of the checkpoint, as it writes them. */
export function captureConfiguration(
  state: HypervState,
  documents: readonly { readonly kind: string; readonly text: string }[],
  consistency: { readonly reached: string; readonly fellBack: string | null },
): readonly Attachment[] {
  const { id, name, version, generation, secureBoot, tpm, processors, memoryMiB, node } = state;
  const summary = {
    ...{ name, id, version, generation, node, processors, memoryMiB },
    firmware: generation === 2 ? 'uefi' : 'bios',
    secureBoot,
    tpm,
    /** Its keys are bound to the host: a guest that needs them asks for its recovery key. */
    tpmContent: tpm ? 'not captured' : 'none',
    disks: state.disks,
    consistency,
  };
  const attachment = (file: string, value: unknown): Attachment => ({
    name: file,
    bytes: new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`),
  });
  return [attachment(configurationName, summary), attachment(settingsName, documents)];
}
