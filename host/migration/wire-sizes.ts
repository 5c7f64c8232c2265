/** What a migration puts on the wire, in bytes (qemu migration/ram.c). */
import { PAGE_SIZE_BYTES } from '../../shared/index.ts';

/** Stream: page header with RAM_SAVE_FLAG_CONTINUE; a zero page adds one byte. */
export const PAGE_HEADER_BYTES = 8;
export const ZERO_PAGE_BYTES = PAGE_HEADER_BYTES + 1;
/** Stream: RAM_SAVE_FLAG_EOS after each iteration. */
export const EOS_BYTES = 8;
/**
 * QEMU's pc machine migrates RAM blocks besides the guest's memory, after it: pc.bios, pc.rom, the
 * ACPI tables and their loader, 532,480 bytes. So many of their pages have content.
 */
export const FIRMWARE_PAGES = 130;
export const FIRMWARE_DATA_PAGES = 48;
export const FIRMWARE_BYTES =
  FIRMWARE_DATA_PAGES * (PAGE_HEADER_BYTES + PAGE_SIZE_BYTES) +
  (FIRMWARE_PAGES - FIRMWARE_DATA_PAGES) * ZERO_PAGE_BYTES;
/**
 * Bytes of a migration that sends so many pages with content, once each, and no others: a zero page
 * need not be sent, since memory that was not sent reads zero at the destination.
 */
export function clairvoyantBytes(contentPages: number): number {
  return contentPages * (PAGE_HEADER_BYTES + PAGE_SIZE_BYTES) + FIRMWARE_BYTES + EOS_BYTES;
}
