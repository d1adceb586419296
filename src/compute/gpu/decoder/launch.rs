//! The steps of a layer's pass: each product and kernel, launched with cubes for its sizes. Knows
//! nothing of their order.

use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::std::tensor::TensorHandle;
use cubek_matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek_matmul::launch::launch_ref;
use cubek_matmul::strategy::Strategy;
use cubek_std::InputBinding;

use super::weights::{GpuLayer, GpuNorm, GpuProjection, Weight};
use super::{F32, GpuDecoder, ROWS};
use crate::compute::gpu::kernels::{self, Cut, HeadParts, Normed, PLANES, TILE, UNITS};
use crate::compute::reference::attention::AttentionShape;
use crate::model::ModelError;

/// So many cubes keep a GPU busy.
const BUSY_CUBES: usize = 64;

impl GpuDecoder {
    /// `out = x · weight`, of `[rows, in]` and `[in, out]`. Both have memory for a multiple of
    /// [`ROWS`] rows.
    pub(super) fn product(&self, x: &TensorHandle, weight: &Weight, out: &TensorHandle) -> Result<(), ModelError> {
        if weight.in_tiles {
            self.product_of_tiles(x, weight, out);
            return Ok(());
        }
        let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: self.element, rhs: self.element, out: F32 });
        let transposed = TensorHandle::new(weight.numbers.handle.clone(), [weight.inner, weight.columns], [1, weight.inner], self.element);
        let [x, weight] = [x.clone(), transposed].map(|tensor| InputBinding::new(tensor.binding(), self.element));
        launch_ref(&Strategy::Auto, &self.client, x, weight, out.clone().binding(), &mut elements)
            .map_err(|error| ModelError::Device(format!("cannot launch a matrix product: {error:?}")))
    }

    pub(super) fn product_of_tiles(&self, x: &TensorHandle, weight: &Weight, out: &TensorHandle) {
        let row_tiles = x.shape()[0].div_ceil(TILE);
        let (column_tiles, inner_tiles) = (weight.columns / TILE, weight.inner / TILE);
        let rows_of_cube = if row_tiles > 2 { ROWS / TILE } else { row_tiles };
        let cubes_of_rows = row_tiles.div_ceil(rows_of_cube);
        // Rows are read once for each column of cubes: as few of these as keep the GPU busy.
        let enough = |columns: &usize| column_tiles.is_multiple_of(*columns) && column_tiles / columns * cubes_of_rows >= BUSY_CUBES;
        let columns_of_cube = [4, 2].into_iter().find(enough).unwrap_or(1);
        // All tiles of a plane at once are few enough for its registers.
        let fits = |together: &usize| inner_tiles.is_multiple_of(PLANES * together) && together * (rows_of_cube + columns_of_cube) <= 12;
        let together = [4, 2].into_iter().find(fits).unwrap_or(1);
        let whole = |tensor: &TensorHandle, width: usize| {
            let rows = cubes_of_rows * rows_of_cube * TILE;
            TensorHandle::new_contiguous([rows, width], tensor.handle.clone(), tensor.dtype).binding().into_buffer_arg()
        };
        kernels::product_of_tiles::launch(
            &self.client,
            CubeCount::Static(cubes_of_rows as u32, (column_tiles / columns_of_cube) as u32, 1),
            CubeDim::new_2d(32, PLANES as u32),
            whole(x, weight.inner),
            weight.numbers.clone().binding().into_buffer_arg(),
            whole(out, weight.columns),
            cubes_of_rows * rows_of_cube,
            inner_tiles,
            column_tiles,
            0,
            inner_tiles,
            1,
            0,
            1,
            inner_tiles,
            Cut {
                rows: rows_of_cube,
                columns: columns_of_cube,
                together,
                planes: [1, 1, PLANES],
                left_transposed: false,
                right_transposed: true,
            },
            self.element,
        );
    }

    /// `out = x · weight + bias`.
    pub(super) fn apply(&self, projection: &GpuProjection, x: &TensorHandle, out: &TensorHandle) -> Result<(), ModelError> {
        self.product(x, &projection.weight, out)?;
        if let Some(bias) = &projection.bias {
            let [rows, width] = [out.shape()[0], out.shape()[1]];
            let cubes = CubeCount::Static(rows as u32, width.div_ceil(UNITS) as u32, 1);
            let units = CubeDim::new_1d(UNITS as u32);
            kernels::add_bias::launch(&self.client, cubes, units, out.clone().into_arg(), bias.clone().into_arg(), width);
        }
        Ok(())
    }

    /// Norms rows for a product. `change` and `sources` may be anything where [`Normed`] does not
    /// use them.
    pub(super) fn norm(
        &self,
        norm: &GpuNorm,
        [x, change, sources]: [&TensorHandle; 3],
        which: Normed,
        product: &Weight,
        out: &TensorHandle,
    ) {
        kernels::norm::launch(
            &self.client,
            CubeCount::Static(out.shape()[0] as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            x.clone().into_arg(),
            change.clone().into_arg(),
            sources.clone().into_arg(),
            norm.weight.clone().into_arg(),
            out.clone().into_arg(),
            self.hidden_size,
            norm.epsilon,
            which,
            product.in_tiles,
            self.element,
        );
    }

    pub(super) fn place_heads(
        &self,
        layer: &GpuLayer,
        qkv: &TensorHandle,
        places: &TensorHandle,
        [queries, keys, values]: [&TensorHandle; 3],
    ) {
        let parts = HeadParts { bias: layer.qkv.bias.is_some(), norms: layer.head_norms.is_some(), rotary: layer.shape.rotary };
        let heads = layer.shape.heads + 2 * layer.shape.key_value_heads;
        kernels::place_heads::launch(
            &self.client,
            CubeCount::Static(qkv.shape()[0] as u32, heads as u32, 1),
            CubeDim::new_1d(layer.shape.head_dim as u32 / 2),
            qkv.clone().into_arg(),
            layer.qkv.bias.as_ref().unwrap_or(&self.angles).clone().into_arg(),
            layer.head_norms.as_ref().map_or(&self.angles, |norm| &norm.weight).clone().into_arg(),
            self.angles.clone().into_arg(),
            places.clone().into_arg(),
            queries.clone().into_arg(),
            keys.clone().into_arg(),
            values.clone().into_arg(),
            layer.shape.heads,
            layer.shape.key_value_heads,
            layer.head_norms.as_ref().map_or(0.0, |norm| norm.epsilon),
            layer.shape.head_dim,
            parts,
            self.element,
        );
    }

    pub(super) fn attend(
        &self,
        layer: &GpuLayer,
        queries: &TensorHandle,
        [keys, values]: [&TensorHandle; 2],
        places: &TensorHandle,
        out: &TensorHandle,
    ) {
        let shape = attention(&self.client, layer.shape, layer.output.weight.in_tiles);
        attend(&self.client, shape, layer.shape.window, [queries, keys, values, places], [out, out], self.element);
    }

    pub(super) fn swiglu(&self, layer: &GpuLayer, gate_up: &TensorHandle, out: &TensorHandle) {
        let [rows, width] = [out.shape()[0], out.shape()[1]];
        kernels::swiglu::launch(
            &self.client,
            CubeCount::Static(rows as u32, width.div_ceil(UNITS) as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            gate_up.clone().into_arg(),
            layer.gate_up.bias.as_ref().unwrap_or(&self.angles).clone().into_arg(),
            out.clone().into_arg(),
            width,
            layer.gate_up.bias.is_some(),
            layer.down.weight.in_tiles,
            self.element,
        );
    }
}

/// How attention is computed on this GPU; the normalizers are not kept.
pub(in crate::compute::gpu) fn attention(client: &Client, shape: AttentionShape, in_tiles: bool) -> kernels::Attention {
    let AttentionShape { heads, key_value_heads, head_dim, .. } = shape;
    let plane = client.properties().hardware.plane_size_max as usize;
    // As wide as gives all units of a plane something to do.
    let vector = [4, 2].into_iter().find(|vector| head_dim.is_multiple_of(*vector) && vector * plane <= head_dim).unwrap_or(1);
    // More would need more registers than a unit has.
    let together = (1..=4).rev().find(|together| (heads / key_value_heads).is_multiple_of(*together)).unwrap_or(1);
    kernels::Attention { heads, key_value_heads, head_dim, together, plane, vector, in_tiles, keeps: false }
}

/// Attention of queries; see [`kernels::attend`].
pub(in crate::compute::gpu) fn attend(
    client: &Client,
    shape: kernels::Attention,
    window: usize,
    [queries, keys, values, places]: [&TensorHandle; 4],
    [out, normalizers]: [&TensorHandle; 2],
    element: ElemType,
) {
    kernels::attend::launch(
        client,
        CubeCount::Static(queries.shape()[0] as u32, (shape.heads / shape.together) as u32, 1),
        CubeDim::new_1d(UNITS as u32),
        shape.vector,
        queries.clone().into_arg(),
        keys.clone().into_arg(),
        values.clone().into_arg(),
        places.clone().into_arg(),
        out.clone().into_arg(),
        normalizers.clone().into_arg(),
        window,
        (shape.head_dim as f64).powf(-0.5) as f32,
        shape,
        element,
    );
}
