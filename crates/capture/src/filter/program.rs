//! An assembler for the classic packet filter of the kernel (networking/filter of its documentation). The compiler of
//! libpcap is C, and so is what Rust crates offer; those that are Rust only write down instructions as this does.
//!
//! Conditions of the machine reach 255 instructions at most, so each one skips a jump, which reaches everywhere.

use sys::capture::Instruction;

/// Loads into the accumulator: a word, half a word or a byte of the frame at `k`, or at `k` behind the index register.
const LD_W: u16 = 0x20;
const LD_H: u16 = 0x28;
const LD_B: u16 = 0x30;
const LD_H_INDEX: u16 = 0x48;
const LD_B_INDEX: u16 = 0x50;
/// Loads from the memory of the machine, which has words, and stores there.
const LD_MEMORY: u16 = 0x60;
const STORE: u16 = 0x02;
/// Loads into the index register: `k`, or four times the lower half of the byte at `k`.
const LDX: u16 = 0x01;
const LDX_HEADER_LENGTH: u16 = 0xb1;
const ADD: u16 = 0x04;
const ADD_INDEX: u16 = 0x0c;
const SHIFT_LEFT: u16 = 0x64;
const TO_INDEX: u16 = 0x07;
const FROM_INDEX: u16 = 0x87;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// A place in a program, which may come later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

/// A program that is being written. Jumps lead forwards only, as the kernel demands.
#[derive(Debug, Default)]
pub(super) struct Program {
    code: Vec<Instruction>,
    /// Where each label is.
    places: Vec<usize>,
    /// Jumps with their labels.
    jumps: Vec<(usize, Label)>,
}

impl Program {
    pub(super) fn label(&mut self) -> Label {
        self.places.push(usize::MAX);
        Label(self.places.len() - 1)
    }

    /// The label is here.
    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = self.code.len();
    }

    pub(super) fn word(&mut self, at: u32) {
        self.push(LD_W, at);
    }

    pub(super) fn half(&mut self, at: u32) {
        self.push(LD_H, at);
    }

    pub(super) fn byte(&mut self, at: u32) {
        self.push(LD_B, at);
    }

    pub(super) fn half_behind_index(&mut self, at: u32) {
        self.push(LD_H_INDEX, at);
    }

    pub(super) fn byte_behind_index(&mut self, at: u32) {
        self.push(LD_B_INDEX, at);
    }

    pub(super) fn save(&mut self) {
        self.push(STORE, 0);
    }

    pub(super) fn restore(&mut self) {
        self.push(LD_MEMORY, 0);
    }

    pub(super) fn index(&mut self, value: u32) {
        self.push(LDX, value);
    }

    /// The length in bytes of an IPv4 header goes into the index register.
    pub(super) fn index_header_length(&mut self, at: u32) {
        self.push(LDX_HEADER_LENGTH, at);
    }

    pub(super) fn add(&mut self, value: u32) {
        self.push(ADD, value);
    }

    pub(super) fn add_index(&mut self) {
        self.push(ADD_INDEX, 0);
    }

    pub(super) fn shift_left(&mut self, bits: u32) {
        self.push(SHIFT_LEFT, bits);
    }

    pub(super) fn store_index(&mut self) {
        self.push(TO_INDEX, 0);
    }

    pub(super) fn load_index(&mut self) {
        self.push(FROM_INDEX, 0);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP, 0);
    }

    pub(super) fn jump_equal(&mut self, value: u32, to: Label) {
        self.condition(JUMP_EQUAL, value, to);
    }

    pub(super) fn jump_any_bit(&mut self, mask: u32, to: Label) {
        self.condition(JUMP_ANY_BIT, mask, to);
    }

    /// The end: so many bytes of the frame are wanted, 0 for none at all.
    pub(super) fn answer(&mut self, bytes: u32) {
        self.push(RETURN, bytes);
    }

    /// Fills in the jumps.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let distance = self.places[label.0].wrapping_sub(at + 1);
            self.code[at].k = u32::try_from(distance).unwrap_or(u32::MAX);
        }
        self.code
    }

    fn condition(&mut self, code: u16, k: u32, to: Label) {
        self.code.push(Instruction { code, jt: 0, jf: 1, k });
        self.jump(to);
    }

    fn push(&mut self, code: u16, k: u32) {
        self.code.push(Instruction { code, jt: 0, jf: 0, k });
    }
}
