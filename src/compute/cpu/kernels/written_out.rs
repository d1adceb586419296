//! Loops that are written out in the source. Knows nothing of what they do.

/// `$work` for each `$turn` below `$count`, a constant of at most 2, 4 or 12.
///
/// Vectors in an array stay in registers if all their indices are constants. Whether the compiler
/// writes a loop out in time depends on the size of its body and on how often it optimizes.
macro_rules! written_out {
    ($turn:ident in 0..$count:expr, at most 2 => $work:block) => {
        written_out!(@ $turn $count, 2, $work, 0 1)
    };
    ($turn:ident in 0..$count:expr, at most 4 => $work:block) => {
        written_out!(@ $turn $count, 4, $work, 0 1 2 3)
    };
    ($turn:ident in 0..$count:expr, at most 12 => $work:block) => {
        written_out!(@ $turn $count, 12, $work, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $turn:ident $count:expr, $most:literal, $work:block, $($at:literal)*) => {
        // More turns than are written out would be left out: they do not compile.
        const { assert!($count <= $most) };
        $(
            if $at < $count {
                let $turn: usize = $at;
                $work
            }
        )*
    };
}

pub(super) use written_out;
