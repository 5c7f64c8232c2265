export * from '../machine/system.ts';
