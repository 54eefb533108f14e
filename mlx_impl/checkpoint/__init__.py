"""From a checkpoint's folder to a decoder: files, names, layouts, quantised weights."""
