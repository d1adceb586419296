//! Keys and values of the tokens of a batch: each new token costs one position. Knows nothing of
//! tokens or text.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// How many positions are added when a cache is full, at least.
const GROWTH_POSITIONS: usize = 64;

/// The keys and values of every layer for a batch of rows; all rows have seen the same number of
/// positions, padding included.
///
/// Writing to a tensor costs a copy of it while anyone else holds it, so each layer's tensors leave
/// the cache while they are used.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

/// One layer's part: `[rows, key_value_heads, capacity, head_dim]`, of which the first `length`
/// positions are filled.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    keys_values: Option<(Tensor<4>, Tensor<4>)>,
    length: usize,
}

impl KvCache {
    /// An empty cache for a model of so many layers. Rows and widths are those of the first forward
    /// pass.
    pub fn new(layers: usize) -> Self {
        Self { layers: (0..layers).map(|_| LayerCache::default()).collect() }
    }

    /// The positions filled, padding included.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.length)
    }

    /// The layers, first to last.
    pub(crate) fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Keeps these rows in this order. A row may be named more than once (a prompt's n responses)
    /// or not at all (it is finished).
    pub fn select_rows(&mut self, rows: &[usize], device: &Device) {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let count = rows.len();
        let rows: Tensor<1, Int> = Tensor::from_data(TensorData::new(rows, [count]), (device, DType::I32));
        for layer in &mut self.layers {
            if let Some((keys, values)) = layer.keys_values.take() {
                layer.keys_values = Some((keys.select(0, rows.clone()), values.select(0, rows.clone())));
            }
        }
    }
}

impl LayerCache {
    /// Adds keys and values of new positions and returns those of all positions so far.
    ///
    /// # Shapes
    /// - keys, values: `[rows, key_value_heads, new, head_dim]`
    /// - output: two of `[rows, key_value_heads, length, head_dim]`
    pub(crate) fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [.., new, _] = keys.dims();
        let start = self.length;
        self.length += new;
        let (keys, values) = match self.keys_values.take() {
            None => (keys, values),
            Some((old_keys, old_values)) => (place(old_keys, keys, start, self.length), place(old_values, values, start, self.length)),
        };
        self.keys_values = Some((keys.clone(), values.clone()));
        (filled(keys, self.length), filled(values, self.length))
    }
}

/// Writes `new` into `old` from position `start` on, in place if there is room, else in a copy with
/// room for more.
fn place(old: Tensor<4>, new: Tensor<4>, start: usize, end: usize) -> Tensor<4> {
    let [rows, heads, capacity, width] = old.dims();
    let old = if end <= capacity {
        old
    } else {
        let capacity = end + GROWTH_POSITIONS.max(end / 2);
        let larger = Tensor::zeros([rows, heads, capacity, width], (&old.device(), old.dtype()));
        larger.slice_assign([0..rows, 0..heads, 0..start, 0..width], filled(old, start))
    };
    old.slice_assign([0..rows, 0..heads, start..end, 0..width], new)
}

/// The first `length` positions.
fn filled(tensor: Tensor<4>, length: usize) -> Tensor<4> {
    if tensor.dims()[2] == length { tensor } else { tensor.narrow(2, 0, length) }
}
