import type { BlockSource, HypervisorConnection } from '../hypervisors/hypervisor.ts';

/** The same connection, with every snapshot's disks as `wrap` makes them. */
export function withDisks(
  connection: HypervisorConnection,
  wrap: (disks: readonly BlockSource[]) => readonly BlockSource[],
): HypervisorConnection {
  return {
    listMachines: (signal) => connection.listMachines(signal),
    async snapshot(machine, options, signal) {
      const taken = await connection.snapshot(machine, options, signal);
      return {
        takenAt: taken.takenAt,
        disks: wrap(taken.disks),
        excluded: taken.excluded,
        attachments: taken.attachments,
        frozenMs: taken.frozenMs,
        settleConsistency: (settleSignal) => taken.settleConsistency(settleSignal),
        ...(taken.notePublished !== undefined && { notePublished: taken.notePublished }),
        [Symbol.asyncDispose]: () => taken[Symbol.asyncDispose](),
      };
    },
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}
