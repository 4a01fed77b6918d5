"""The offline job: images and votes -> TFRecord shards. Stands on tfrecords alone; never imports TensorFlow."""
