import { LibvirtRefused } from '../../../../hypervisors/kvm/libvirt/libvirt-errors.ts';
import type { Virsh } from '../../../../hypervisors/kvm/libvirt/virsh.ts';

/** By command: what it prints, the error that it ends with, or null where libvirt refuses. The last of several goes on. */
export type Answers = Readonly<Record<string, Answer | readonly Answer[]>>;
type Answer = string | Error | null;

/** No process: a libvirt that was never there. */
export function virshThatSays(answers: Answers): Virsh {
  const asked = new Map<string, number>();
  const ask = async ([command = '']: readonly string[]): Promise<string | null> => {
    const known = answers[command];
    if (known === undefined) throw new Error(`nobody expected ${command}`);
    const times = asked.get(command) ?? 0;
    asked.set(command, times + 1);
    const answer = Array.isArray(known) ? (known[Math.min(times, known.length - 1)] ?? null) : known;
    if (answer instanceof Error) throw answer;
    return typeof answer === 'string' ? answer : null;
  };
  return {
    uri: 'test:///nobody-there',
    ask,
    async run(args) {
      const printed = await ask(args);
      if (printed === null) throw new LibvirtRefused(`refused ${args[0]}`);
      return printed;
    },
    runAll: () => Promise.reject(new Error('nobody expected several commands')),
    [Symbol.dispose]: () => undefined,
  };
}
