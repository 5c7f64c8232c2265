/**
 * Where devices differ and may: the conformance suite asks here and nowhere else, so that every
 * difference between two devices is one row with its reason.
 */
export interface DeviceTraits {
  readonly name: string;
  /** Trait by trait; see `TRAITS` for what each one says and why it is allowed. */
  readonly values: Readonly<Record<string, string | number | boolean>>;
}
