//! From token lists on the host to a padded tensor on a device.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::model::ModelError;
use crate::token_lists::TokenLists;

/// Where a shorter row is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// At its start: rows end in the same column.
    Left,
    /// At its end: rows start in the same column.
    Right,
}

impl TokenLists {
    /// The chosen `rows`, in the given order, padded to the longest of them.
    ///
    /// The padding is the row's first id on the left, its last id on the right. Only lengths tell
    /// padding from real tokens.
    ///
    /// # Shapes
    /// - output: `[rows, longest]`, i32
    ///
    /// # Errors
    /// When no row is chosen or one does not exist.
    pub fn to_padded(&self, rows: &[usize], padding: Padding, device: &Device) -> Result<Tensor<2, Int>, ModelError> {
        let chosen = rows.iter().map(|&row| self.row(row)).collect::<Result<Vec<&[i32]>, _>>()?;
        let longest = chosen.iter().map(|row| row.len()).max();
        let longest = longest.ok_or_else(|| ModelError::Sequences("no row was chosen".to_string()))?;
        let mut ids: Vec<i32> = Vec::with_capacity(rows.len() * longest);
        for row in chosen {
            let missing = longest - row.len();
            match padding {
                Padding::Left => {
                    ids.extend(row.first().into_iter().flat_map(|first| std::iter::repeat_n(*first, missing)));
                    ids.extend_from_slice(row);
                }
                Padding::Right => {
                    ids.extend_from_slice(row);
                    ids.extend(row.last().into_iter().flat_map(|last| std::iter::repeat_n(*last, missing)));
                }
            }
        }
        Ok(Tensor::from_data(TensorData::new(ids, [rows.len(), longest]), (device, DType::I32)))
    }
}
