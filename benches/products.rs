//! Matrix products in f32 and in bf16, alternately, and the most that the units for them compute. Knows nothing of models.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use optune::compute::Precision;
use optune::compute::cpu::kernels::{self, Left, Packed, Right};
use serde_json::{Value, json};

use crate::measurement::peak_rss_bytes;

/// What `products` is asked for.
#[derive(clap::Args)]
pub struct Products {
    /// Shapes: rows x inner x columns.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1x576x1536,8x576x1536,32x576x1536,128x576x1536,256x576x1536,256x1536x576,2048x576x1536,2048x1536x576"
    )]
    shapes: Vec<String>,
    /// Measurements of each product, in turn.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[arg(long)]
    threads: Option<usize>,
}

/// A run takes at least so long.
const RUN: Duration = Duration::from_millis(50);

/// Measures and says how many Gflop/s there were.
///
/// # Errors
/// When a shape is none.
pub fn run(asked: &Products) -> Result<Value, Box<dyn Error>> {
    kernels::check_bf16_unit()?;
    let threads = asked.threads.unwrap_or_else(rayon::current_num_threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let start = Instant::now();
    let mut lines = Vec::new();
    for shape in &asked.shapes {
        let dims = shape.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>();
        let Ok([rows, inner, columns]) = dims.as_deref() else {
            return Err(format!("expected a shape such as 8x576x1536, found {shape}").into());
        };
        lines.extend(pool.install(|| shape_lines(asked.runs, [*rows, *inner, *columns])));
    }
    let peak = |count: usize| -> f64 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
        let run = || pool.as_ref().map_or(0.0, |pool| pool.broadcast(|_| peak_gflops()).into_iter().sum());
        median((0..asked.runs).map(|_| run()).collect())
    };
    Ok(json!({
        "case": "products", "side": "optune", "threads": threads, "seconds": start.elapsed().as_secs_f64(), "peak_rss_bytes": peak_rss_bytes(),
        "unit": kernels::bf16_unit(), "peak_gflops_one_thread": peak(1), "peak_gflops": peak(threads), "products": lines,
    }))
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

/// Each way in which a factor is stored: packed as weights of sampling are, and as training has them.
fn shape_lines(runs: usize, [rows, inner, columns]: [usize; 3]) -> Vec<Value> {
    let (left, right) = (numbers(rows * inner), numbers(inner * columns));
    let singles = Packed::of_rows(inner, &[(&right, columns)]);
    let pairs = Packed::of_rows(inner, &[(&right, columns)]).rounded();
    let factors = [
        ("packed", Left::Rows(&left), [Right::Packed(&singles), Right::Packed(&pairs)]),
        ("x · w", Left::Rows(&left), [Right::Rows(&right, columns); 2]),
        ("x · wᵀ", Left::Rows(&left), [Right::Columns(&right, columns); 2]),
        ("xᵀ · y", Left::Columns(&left), [Right::Rows(&right, columns); 2]),
    ];
    let mut out = vec![0.0; rows * columns];
    let mut of_factors = |(name, left, [f32_right, bf16_right]): (&str, Left<'_>, [Right<'_>; 2])| {
        let mut gflops = [const { Vec::new() }; 2];
        // One more that does not count.
        for run in 0..=runs {
            for (at, right, precision) in [(0, f32_right, Precision::F32), (1, bf16_right, Precision::Bf16)] {
                let (start, mut count) = (Instant::now(), 0);
                while start.elapsed() < RUN {
                    kernels::products_in(precision, left, [(right, &mut out[..])]);
                    count += 1;
                }
                if run > 0 {
                    gflops[at].push(2.0 * (count * rows * inner * columns) as f64 / start.elapsed().as_secs_f64() / 1e9);
                }
            }
        }
        black_box(&mut out);
        let [single, half] = gflops.map(median);
        json!({"shape": [rows, inner, columns], "factors": name, "f32_gflops": single, "bf16_gflops": half, "ratio": half / single})
    };
    factors.into_iter().map(&mut of_factors).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Gflop/s of this thread where nothing is read from memory: of AMX if bf16 products use it, else of fused multiply-adds.
fn peak_gflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if kernels::bf16_unit() == "AMX" {
        return amx_gflops();
    }
    pulp::Arch::new().dispatch(Fused)
}

struct Fused;

impl pulp::WithSimd for Fused {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) -> f64 {
        const CHAINS: usize = 12;
        const STEPS: usize = 5_000_000;
        let factor = simd.splat_f32s(black_box(0.5));
        let mut sums: [S::f32s; CHAINS] = std::array::from_fn(|at| simd.splat_f32s(at as f32));
        let start = Instant::now();
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(factor, factor, *sum);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        2.0 * (STEPS * CHAINS * S::F32_LANES) as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}

/// A loop of four multiplications of tiles.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn amx_gflops() -> f64 {
    use std::arch::asm;

    const STEPS: u64 = 1_000_000;
    #[repr(C, align(64))]
    struct Aligned<T>(T);
    let mut configuration = Aligned([0_u8; 64]);
    configuration.0[0] = 1;
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64;
        configuration.0[48 + tile] = 16;
    }
    let factors = Aligned([0x3f80_u16; 512]);
    let start = Instant::now();
    // SAFETY: the process was given the unit's tiles; reads two arrays of 1 KiB and 64 bytes.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "tileloadd tmm4, [{factors} + {stride}*1]",
            "tileloadd tmm5, [{factors} + {stride}*1]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "tdpbf16ps tmm1, tmm4, tmm5",
            "tdpbf16ps tmm2, tmm4, tmm5",
            "tdpbf16ps tmm3, tmm4, tmm5",
            "dec {steps}",
            "jnz 2b",
            "tilerelease",
            configuration = in(reg) configuration.0.as_ptr(),
            factors = in(reg) factors.0.as_ptr(),
            stride = in(reg) 64_u64,
            steps = inout(reg) STEPS => _,
            options(nostack),
        );
    }
    (STEPS * 4 * 2 * 16 * 16 * 32) as f64 / start.elapsed().as_secs_f64() / 1e9
}
