/** What keeps a drill from being made at all. That a machine does not boot is no error but a finding. */

/** QEMU, or a firmware that a machine needs, is not here or does not start. */
export class DrillHostUnfit extends Error {
  readonly code = 'DRILL_HOST_UNFIT';
  override readonly name = 'DrillHostUnfit';
}
