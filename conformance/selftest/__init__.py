"""The suite on trial: known mistakes must be caught, honest implementations must not be accused."""
