/** Configuration space of the balloon device, virtio 1.4 §5.5.4: what is there and who writes it. */
import {
  BalloonConfig,
  BalloonFeature,
  balloonConfigBytes,
  type FeatureSet,
  hasFeature,
} from '../../protocol/index.ts';

/**
 * The space as the driver reads it. Its length follows from the offered features, as QEMU's; where
 * `configBytes` says otherwise, what is beyond the last field reads as 0.
 */
export function encodeConfig(
  values: BalloonConfig,
  offered: FeatureSet,
  configBytes: number | null,
): Uint8Array {
  const sizeBytes = configBytes ?? balloonConfigBytes(offered);
  const space = new Uint8Array(Math.max(sizeBytes, BalloonConfig.sizeBytes));
  BalloonConfig.write(new DataView(space.buffer), 0, values);
  return space.subarray(0, sizeBytes);
}

/** Fields that the driver owns. */
export type DriverField = 'actual' | 'poison_val';

/**
 * A driver's write: the whole of one field that it owns, or null. `num_pages` and
 * `free_page_hint_cmd_id` are read-only to the driver.
 */
export function decodeConfigWrite(
  offset: number,
  data: Uint8Array,
  negotiated: FeatureSet,
): { readonly field: DriverField; readonly value: number } | null {
  if (data.length !== 4) return null;
  const value = new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
  if (offset === BalloonConfig.offsets.actual) return { field: 'actual', value };
  const poison = hasFeature(negotiated, BalloonFeature.PAGE_POISON);
  if (poison && offset === BalloonConfig.offsets.poison_val) return { field: 'poison_val', value };
  return null;
}
