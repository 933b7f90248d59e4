/** A process that takes a snapshot of the machine it is told, and is killed before it can end it. */
import { connectKvm } from '../../../hypervisors/kvm/kvm-connection.ts';
import type { KvmMachine } from '../../../hypervisors/kvm/kvm-machine.ts';

const machine: KvmMachine = JSON.parse(process.argv[2] ?? '');
const options = { quiesce: 'off', whenChanging: 'refuse' } as const;
await connectKvm([machine]).snapshot({ name: machine.name }, options, new AbortController().signal);
process.kill(process.pid, 'SIGKILL');
