//! What the programs need of the stack, counted as 5.10 does: 512 bytes for a chain of calls, in which each function takes
//! what it touches, rounded up to 32 (`check_max_stack_depth`). Newer kernels round up to less.

use std::collections::{BTreeMap, HashSet};

use aya_obj::{Object, generated::bpf_insn};

use super::{OBJECT, PACKET_PROGRAMS, hooks};

/// Bytes that one chain of calls may take.
const LIMIT: u32 = 512;
/// Bytes that the next change of a packet program finds free. The socket programs have used them.
const SPARE: u32 = 64;
/// What a function touches is rounded up to a multiple of this.
const UNIT: u32 = 32;

/// `BPF_REG_10`.
const FRAME: u8 = 10;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_CALL` as the source: the constant leads to a function of the program.
const TO_FUNCTION: u8 = 1;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
const ADD: u8 = 0x07;
/// `BPF_LD | BPF_IMM | BPF_DW`, which is two instructions long.
const WIDE: u8 = 0x18;

#[test]
fn the_programs_leave_room_on_the_stack() {
    let object = linked();
    for name in hooks::names() {
        let program = &object.programs[name];
        let depth = depth(&object.functions[&program.function_key()].instructions);
        println!("{name}: {depth} of {LIMIT} bytes");
        assert!(depth > 0, "{name} was not understood");
        let spare = if PACKET_PROGRAMS.contains(&name) { SPARE } else { 0 };
        assert!(depth + spare <= LIMIT, "{name} takes {depth} bytes; {spare} of {LIMIT} are to be left");
    }
}

/// A function that touches 40 bytes, then calls one that touches 8 by way of a register.
#[test]
fn a_chain_is_added_up_in_units() {
    let instructions = [
        instruction(0x7b, FRAME, 1, -40, 0), // *(u64 *)(r10 - 40) = r1
        instruction(CALL, 0, TO_FUNCTION, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
        instruction(MOVE, 2, FRAME, 0, 0),
        instruction(ADD, 2, 0, 0, -8),
        instruction(0x95, 0, 0, 0, 0),
    ];
    assert_eq!(depth(&instructions), 64 + 32);
}

/// The object with each program's functions behind it, as the kernel is given it.
fn linked() -> Object {
    let mut object = Object::parse(OBJECT).expect("an object");
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("calls lead to functions");
    object
}

/// Bytes that the deepest chain of calls takes.
fn depth(instructions: &[bpf_insn]) -> u32 {
    let mut functions = BTreeMap::from([(0, Vec::new())]);
    let calls: Vec<(usize, usize)> = calls(instructions).collect();
    for (_, callee) in &calls {
        functions.insert(*callee, Vec::new());
    }
    for (at, callee) in calls {
        let (_, callees) = functions.range_mut(..=at).next_back().expect("the first begins at 0");
        callees.push(callee);
    }
    chain(instructions, &functions, 0)
}

/// Where calls of functions stand, and where these begin.
fn calls(instructions: &[bpf_insn]) -> impl Iterator<Item = (usize, usize)> {
    let is_call = |one: &bpf_insn| one.code == CALL && one.src_reg() == TO_FUNCTION;
    let found = instructions.iter().enumerate().filter(move |(_, one)| is_call(one));
    found.map(|(at, one)| (at, at.strict_add_signed(one.imm as isize + 1)))
}

fn chain(instructions: &[bpf_insn], functions: &BTreeMap<usize, Vec<usize>>, start: usize) -> u32 {
    let end = functions.range(start + 1..).next().map_or(instructions.len(), |(next, _)| *next);
    let own = touched(&instructions[start..end]).max(1).next_multiple_of(UNIT);
    let deepest = functions[&start].iter().map(|callee| chain(instructions, functions, *callee)).max();
    own + deepest.unwrap_or(0)
}

/// How far below its frame's end a function reaches: by the frame pointer, or by a register that was made from it, as LLVM
/// does in two instructions.
fn touched(function: &[bpf_insn]) -> u32 {
    let mut offsets = [None; 16];
    let mut deepest = 0;
    let mut previous = 0;
    for one in function {
        let is_second_half = std::mem::replace(&mut previous, one.code) == WIDE;
        if is_second_half {
            previous = 0;
            continue;
        }
        offsets[usize::from(FRAME)] = Some(0);
        let (to, from) = (usize::from(one.dst_reg()), usize::from(one.src_reg()));
        let reached = match one.code & 0x07 {
            // BPF_LDX, and BPF_ST or BPF_STX.
            0x01 => offsets[from].map(|offset: i32| offset + i32::from(one.off)),
            0x02 | 0x03 => offsets[to].map(|offset| offset + i32::from(one.off)),
            _ => None,
        };
        match one.code {
            MOVE => offsets[to] = offsets[from],
            ADD => offsets[to] = offsets[to].map(|offset| offset + one.imm),
            // BPF_ALU, BPF_ALU64, BPF_LDX and BPF_LD write the register.
            code if matches!(code & 0x07, 0x00 | 0x01 | 0x04 | 0x07) => offsets[to] = None,
            _ => {}
        }
        let made = (one.code == ADD).then_some(offsets[to]).flatten();
        for offset in reached.into_iter().chain(made) {
            deepest = deepest.max(offset.unsigned_abs().min(if offset < 0 { LIMIT } else { 0 }));
        }
    }
    deepest
}

fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off, imm }
}
